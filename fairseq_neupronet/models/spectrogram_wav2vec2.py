"""fairseq model ``spectrogram_wav2vec2``: the profile extractor in pretraining.

Trained with fairseq's own ``wav2vec`` criterion. Letters: B clips, M mel bands, F frames, A anchors, N negatives.
"""

from dataclasses import dataclass, field
from typing import List, Optional  # fairseq's argument parser reads these forms only

import numpy as np
import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model
from fairseq.utils import get_available_activation_fns
from torch import Tensor

from fairseq_neupronet.backbones.wav2vec2.convolutions import EXTRACTOR_MODES
from fairseq_neupronet.backbones.wav2vec2.network import Randomness, SpectrogramWav2Vec2
from fairseq_neupronet.backbones.wav2vec2.span_masks import SELECTIONS
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.precision import autocast


@dataclass
class SpectrogramWav2Vec2Config(FairseqDataclass):
    n_mels: Optional[int] = field(default=None, metadata={"help": "mel bands; read from the manifest when unset"})
    conv_feature_layers: str = field(
        default="[(512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]",
        metadata={
            "help": "convolutions over time: a list of (dim, kernel, dilation, stride); lists, tuples, whole "
            "numbers, + and * are understood; a 3-tuple means stride 2"
        },
    )
    extractor_mode: ChoiceEnum(EXTRACTOR_MODES) = field(
        default="default", metadata={"help": "default: group norm after the first convolution; layer_norm: after each"}
    )
    encoder_layers: int = field(default=2, metadata={"help": "transformer layers"})
    encoder_embed_dim: int = field(default=256, metadata={"help": "width; the last convolution's dim as well"})
    encoder_ffn_embed_dim: int = field(default=512, metadata={"help": "width of the feed-forward layers"})
    encoder_attention_heads: int = field(default=2, metadata={"help": "attention heads"})
    activation_fn: ChoiceEnum(get_available_activation_fns()) = field(
        default="gelu", metadata={"help": "of the feed-forward layers"}
    )
    layer_norm_first: bool = field(default=False, metadata={"help": "layer norm before instead of after a sub-layer"})
    conv_pos: int = field(default=128, metadata={"help": "kernel of the convolutional position embedding"})
    conv_pos_groups: int = field(default=16, metadata={"help": "groups of the convolutional position embedding"})
    dropout: float = field(default=0.1, metadata={"help": "in the transformer"})
    attention_dropout: float = field(default=0.1, metadata={"help": "on attention weights"})
    activation_dropout: float = field(default=0.0, metadata={"help": "after the feed-forward activation"})
    encoder_layerdrop: float = field(default=0.05, metadata={"help": "chance to leave out a layer in training"})
    dropout_input: float = field(default=0.1, metadata={"help": "on the convolutional features, before masking"})
    dropout_features: float = field(default=0.1, metadata={"help": "on the targets of the contrastive task"})
    feature_grad_mult: float = field(default=0.1, metadata={"help": "gradient scale of the convolutions; 0 freezes"})
    mask_prob: float = field(default=0.65, metadata={"help": "share of steps covered by span masks (overlaps aside)"})
    mask_length: int = field(default=10, metadata={"help": "steps of a span; a shorter clip takes its steps minus 1"})
    mask_selection: ChoiceEnum(SELECTIONS) = field(
        default="static",
        metadata={
            "help": "lengths of spans: static, all mask_length; uniform, from mask_other to twice mask_length; "
            "normal, mean mask_length and deviation mask_other; poisson, mean mask_length"
        },
    )
    mask_other: float = field(default=0.0, metadata={"help": "see mask_selection"})
    no_mask_overlap: bool = field(default=False, metadata={"help": "keep spans apart; those without room are left out"})
    mask_min_space: int = field(default=1, metadata={"help": "no_mask_overlap: unmasked steps between spans at least"})
    mask_dropout: float = field(default=0.0, metadata={"help": "share of a clip's masked steps that is unmasked again"})
    require_same_masks: bool = field(
        default=False,
        metadata={
            "help": "unmask steps at random until the clips of a batch have equally many masked, and "
            "channels so; true in the official code"
        },
    )
    mask_channel_prob: float = field(default=0.0, metadata={"help": "the same for spans of channels"})
    mask_channel_length: int = field(default=10, metadata={"help": "channels of a span"})
    mask_channel_selection: ChoiceEnum(SELECTIONS) = field(default="static", metadata={"help": "as mask_selection"})
    mask_channel_other: float = field(default=0.0, metadata={"help": "as mask_other"})
    no_mask_channel_overlap: bool = field(default=False, metadata={"help": "as no_mask_overlap"})
    mask_channel_min_space: int = field(
        default=1, metadata={"help": "no_mask_channel_overlap: unmasked channels between spans at least"}
    )
    mask_channel_before: bool = field(
        default=False,
        metadata={"help": "channels are masked before steps, so that a masked step has all of its channels"},
    )
    num_negatives: int = field(default=20, metadata={"help": "negatives from the anchor's own clip"})
    cross_sample_negatives: int = field(
        default=80, metadata={"help": "negatives from clips of other profiles (of other clips without profiles)"}
    )
    negatives_from_everywhere: bool = field(
        default=True, metadata={"help": "draw negatives from all unpadded steps, not from masked ones only"}
    )
    logit_temp: float = field(default=0.1, metadata={"help": "temperature of the cosine similarities"})
    final_dim: int = field(default=256, metadata={"help": "width in which steps are compared; 0: encoder_embed_dim"})
    quantize_targets: bool = field(default=False, metadata={"help": "quantise the targets (Gumbel, product codebook)"})
    latent_vars: int = field(default=320, metadata={"help": "codewords in each group of the codebook"})
    latent_groups: int = field(default=2, metadata={"help": "groups of the codebook"})
    latent_dim: int = field(default=0, metadata={"help": "width of the quantised targets; 0: final_dim"})
    latent_temp: List[float] = field(
        default_factory=lambda: [2.0, 0.5, 0.999995],
        metadata={"help": "temperature of the quantiser: start, end, decay a update"},
    )


@register_model("spectrogram_wav2vec2", dataclass=SpectrogramWav2Vec2Config)
class SpectrogramWav2Vec2Model(SpectrogramWav2Vec2, BaseFairseqModel):
    """Spectrogram wav2vec 2.0 as fairseq's ``wav2vec`` criterion wants it."""

    bfloat16 = False  # the task's

    @classmethod
    def build_model(cls, cfg: SpectrogramWav2Vec2Config, task):
        if not cfg.mask_prob:
            raise InputError("model.mask_prob is 0, which leaves pretraining no step to tell; set it above 0")
        return cls(cfg, cfg.n_mels)

    def set_num_updates(self, num_updates: int) -> None:
        SpectrogramWav2Vec2.set_num_updates(self, num_updates)
        BaseFairseqModel.set_num_updates(self, num_updates)

    def forward(
        self,
        source: Tensor,
        padding_mask: Tensor,
        profile: Tensor | None = None,
        frames: np.ndarray | None = None,
    ) -> dict:
        """The contrastive task; see :meth:`SpectrogramWav2Vec2.contrast`. ``source`` (B, M, F), ``profile`` (B,)."""
        randomness = Randomness.for_batch(self.training, source.device)
        with autocast(self.bfloat16, source.device):
            encoded = self.encode(source, padding_mask, randomness.masks, frames=frames)
            return self.contrast(encoded, profile, randomness)

    def get_logits(self, net_output: dict) -> Tensor:
        """(A, 1 + N), the true step first."""
        return net_output["logits"]

    def get_targets(self, sample: dict, net_output: dict) -> Tensor:
        """(A,) zeros."""
        logits = net_output["logits"]
        return torch.zeros(len(logits), dtype=torch.long, device=logits.device)

    def get_extra_losses(self, net_output: dict) -> list[Tensor]:
        """Codebook diversity (with a quantiser) and the features' penalty, in fairseq's order."""
        losses = []
        if "prob_perplexity" in net_output:
            n_vars = net_output["num_vars"]
            losses.append((n_vars - net_output["prob_perplexity"]) / n_vars)
        return [*losses, net_output["features_pen"]]
