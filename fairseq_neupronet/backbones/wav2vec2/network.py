"""Spectrogram wav2vec 2.0: the profile extractor and the transformer backbone.

wav2vec 2.0 (Baevski et al., NeurIPS 2020) over mel bands instead of samples. fairseq gives the transformer
encoder, its masking embedding and the Gumbel quantiser; the causal convolutions, the span masks from one step up
and the profile-aware negatives are ours.

Letters: B clips, M mel bands, F frames, T encoder steps, C encoder width, A anchors (masked steps), N negatives.
"""

from dataclasses import dataclass

import numpy as np
import torch
from fairseq.models.wav2vec.wav2vec2 import TransformerEncoder, Wav2Vec2Config
from fairseq.modules import GradMultiply
from torch import Tensor, nn

from fairseq_neupronet.backbones.wav2vec2.conv_spec import output_lengths, parse_conv_spec
from fairseq_neupronet.backbones.wav2vec2.convolutions import CausalConvolutions
from fairseq_neupronet.backbones.wav2vec2.infonce import infonce_logits
from fairseq_neupronet.backbones.wav2vec2.negatives import Negatives, sample_negatives
from fairseq_neupronet.backbones.wav2vec2.positional_convolution import PositionalConvolution
from fairseq_neupronet.backbones.wav2vec2.quantizer import CodebookQuantizer
from fairseq_neupronet.backbones.wav2vec2.span_masks import channel_mask, span_mask
from fairseq_neupronet.backbones.wav2vec2.transformer_sizes import check_sizes
from fairseq_neupronet.errors import InputError

# What fixes the parameters' names and shapes; the rest of a config may differ between pretraining and use.
ARCHITECTURE_FIELDS = (
    "conv_feature_layers",
    "extractor_mode",
    "encoder_layers",
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "activation_fn",
    "layer_norm_first",
    "conv_pos",
    "conv_pos_groups",
    "final_dim",
    "logit_temp",
    "quantize_targets",
    "latent_vars",
    "latent_groups",
    "latent_dim",
)
_EVALUATION_SEED = 1


@dataclass
class Encoded:
    """What the encoder makes of a batch.

    Attributes:
        x: (B, T, C) contextual steps.
        features: (B, T, C) unmasked convolutional features, the targets of the contrastive task.
        padding: (B, T) bool, True on padding.
        steps: (B,) unpadded steps, on the host.
        masked: (B, T) bool, the span mask, on the host; None where masking was off.
        features_penalty: () mean square of the convolutional features.
    """

    x: Tensor
    features: Tensor
    padding: Tensor
    steps: np.ndarray
    masked: np.ndarray | None
    features_penalty: Tensor


@dataclass
class Randomness:
    """Where masks and negatives come from: torch's generator in training (which fairseq reseeds at each update, so
    that a resumed training draws the same), a fixed seed in evaluation, so that validation loss repeats."""

    masks: np.random.Generator
    negatives: torch.Generator | None

    @classmethod
    def for_batch(cls, training: bool, device: torch.device) -> "Randomness":
        if training:
            return cls(np.random.default_rng(int(torch.randint(2**31, ()))), None)
        return cls(
            np.random.default_rng(_EVALUATION_SEED), torch.Generator(device=device).manual_seed(_EVALUATION_SEED)
        )


class SpectrogramWav2Vec2(nn.Module):
    """The network. Parameters bear the names of fairseq's wav2vec 2.0.

    Args:
        config: a :class:`~fairseq_neupronet.models.spectrogram_wav2vec2.SpectrogramWav2Vec2Config`.
        n_mels: M.

    Raises:
        InputError: a convolution specification that cannot be read or does not end at the encoder's width, or sizes
            that do not fit each other.
    """

    def __init__(self, config, n_mels: int):
        super().__init__()
        self.config = config
        self.conv_spec = parse_conv_spec(config.conv_feature_layers)
        width = config.encoder_embed_dim
        if self.conv_spec[-1][0] != width:
            raise InputError(
                f"conv_feature_layers ends at {self.conv_spec[-1][0]} channels and encoder_embed_dim is {width}; "
                "nothing projects between them, so make them equal"
            )
        final_dim = config.final_dim or width
        check_sizes(config)
        self.feature_extractor = CausalConvolutions(self.conv_spec, n_mels, str(config.extractor_mode))
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.dropout_features = nn.Dropout(config.dropout_features)
        self.mask_emb = nn.Parameter(torch.empty(width).uniform_())
        target_dim = width
        self.quantizer = None
        if config.quantize_targets:
            target_dim = config.latent_dim or final_dim
            self.quantizer = CodebookQuantizer(
                dim=width,
                num_vars=config.latent_vars,
                temp=tuple(config.latent_temp),
                groups=config.latent_groups,
                combine_groups=False,
                vq_dim=target_dim,
                time_first=True,
            )
        self.project_q = nn.Linear(target_dim, final_dim)
        self.encoder = TransformerEncoder(_fairseq_encoder_config(config))
        self.encoder.pos_conv = PositionalConvolution(self.encoder.pos_conv)
        self.final_proj = nn.Linear(width, final_dim)

    def set_num_updates(self, num_updates: int) -> None:
        """The quantiser's temperature follows the number of updates."""
        if self.quantizer is not None:
            self.quantizer.set_num_updates(num_updates)

    def _convolve(self, source: Tensor) -> Tensor:
        """(B, M, F) → features (B, T, C)."""
        scale = self.config.feature_grad_mult
        if scale > 0:
            features = self.feature_extractor(source)
            if scale != 1.0:
                features = GradMultiply.apply(features, scale)
        else:
            with torch.no_grad():
                features = self.feature_extractor(source)
        return features.transpose(1, 2)

    def draw_masks(
        self, steps: np.ndarray, n_steps: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Span mask (B, T) and channel mask (B, C) or None, for clips of ``steps`` (B,) steps."""
        config = self.config
        # Without a probability there are no spans, not the least number of them.
        spans = span_mask(
            steps,
            n_steps,
            config.mask_prob,
            config.mask_length,
            min_masks=2 if config.mask_prob else 0,
            rng=rng,
            selection=str(config.mask_selection),
            mask_other=config.mask_other,
            no_overlap=config.no_mask_overlap,
            min_space=config.mask_min_space,
            dropout=config.mask_dropout,
            equal_counts=config.require_same_masks,
        )
        channels = None
        if config.mask_channel_prob > 0:
            channels = channel_mask(
                len(steps),
                config.encoder_embed_dim,
                config.mask_channel_prob,
                config.mask_channel_length,
                rng=rng,
                selection=str(config.mask_channel_selection),
                mask_other=config.mask_channel_other,
                no_overlap=config.no_mask_channel_overlap,
                min_space=config.mask_channel_min_space,
                equal_counts=config.require_same_masks,
            )
        return spans, channels

    def encode(
        self,
        source: Tensor,
        padding_mask: Tensor,
        rng: np.random.Generator | None,
        masked: Tensor | None = None,
        frames: np.ndarray | None = None,
    ) -> Encoded:
        """Convolve, mask and encode.

        Args:
            source: (B, M, F).
            padding_mask: (B, F) bool.
            rng: draws the span and channel masks; None leaves the clips whole.
            masked: (B, T) bool, a given span mask instead of a drawn one.
            frames: (B,) unpadded frames, where the host knows them: asking a GPU makes it wait.
        """
        if frames is None:
            frames = (~padding_mask).sum(dim=1).cpu().numpy()
        features = self._convolve(source)
        penalty = features.float().pow(2).mean()
        n_steps = features.shape[1]
        steps = output_lengths(frames, self.conv_spec)
        padding = _on(np.arange(n_steps) >= steps[:, None], source.device)
        x, unmasked = self.dropout_input(features), self.dropout_features(features)
        spans = channels = None
        if masked is not None:
            spans = masked.cpu().numpy()
        elif rng is not None:
            spans, channels = self.draw_masks(steps, n_steps, rng)
        if channels is not None and self.config.mask_channel_before:
            x = x.masked_fill(_on(channels, x.device).unsqueeze(1), 0.0)
        if spans is not None:
            x = torch.where(_on(spans, x.device).unsqueeze(2), self.mask_emb.to(x.dtype), x)
        if channels is not None and not self.config.mask_channel_before:
            x = x.masked_fill(_on(channels, x.device).unsqueeze(1), 0.0)
        if x.data_ptr() in (features.data_ptr(), unmasked.data_ptr()):
            x = x.clone()  # the encoder zeroes padding in place
        x, _ = self.encoder(x, padding_mask=padding if (steps < n_steps).any() else None)
        return Encoded(x, unmasked, padding, steps, spans, penalty)

    def contrast(
        self,
        encoded: Encoded,
        group: Tensor | None,
        randomness: Randomness,
        negatives: Negatives | None = None,
        candidate: Tensor | None = None,
    ) -> dict:
        """The contrastive task on a batch: tell each masked step's own feature among distractors (InfoNCE).

        Args:
            encoded: of :meth:`encode`, with a span mask.
            group: (B,) codes; negatives across clips come from other codes only. None: every clip its own group.
            randomness: of negatives.
            negatives: given ones instead of drawn ones.
            candidate: (B, T) bool, the steps that negatives may come from; as configured when left out.

        Returns:
            ``logits`` (A, 1 + N), the true step first; ``features_pen`` (); ``without_across`` (), how many anchors
            had no other group to draw from; with a quantiser also ``prob_perplexity``, ``code_perplexity``,
            ``num_vars`` and ``temp``.
        """
        config, device = self.config, encoded.x.device
        n_steps = encoded.x.shape[1]
        unpadded = np.arange(n_steps) < encoded.steps[:, None]
        anchors = encoded.masked & unpadded
        if group is None:
            group = torch.arange(len(encoded.x), device=device)
        if candidate is not None:
            may_be_drawn = candidate.cpu().numpy()
        else:
            may_be_drawn = unpadded if config.negatives_from_everywhere else anchors
        # Places come from the host, which drew the masks: counting them on a GPU would make it wait.
        clip, step = (_on(place, device) for place in np.nonzero(anchors))
        anchor = clip * n_steps + step
        if negatives is None:
            negatives = sample_negatives(
                clip,
                step,
                _on(may_be_drawn, device),
                group,
                config.num_negatives,
                config.cross_sample_negatives,
                generator=randomness.negatives,
            )
        targets, codebook = self._targets(encoded.features, _on(np.flatnonzero(may_be_drawn), device))
        queries = self.final_proj(encoded.x.flatten(0, 1)[anchor])
        return {
            "logits": infonce_logits(queries, targets, anchor, negatives, config.logit_temp),
            "features_pen": encoded.features_penalty,
            "without_across": negatives.n_without_across,
            **codebook,
        }

    def _targets(self, features: Tensor, places: Tensor) -> tuple[Tensor, dict]:
        """Projected (and quantised) features at these of the B · T places, zero elsewhere: (B · T, final_dim)."""
        features, codebook = features.flatten(0, 1), {}
        chosen = features[places]
        if self.quantizer is not None:
            quantized = self.quantizer(chosen.unsqueeze(0))
            chosen = quantized["x"].squeeze(0)
            codebook = {key: quantized[key] for key in ("prob_perplexity", "code_perplexity", "num_vars", "temp")}
        chosen = self.project_q(chosen)
        return chosen.new_zeros(len(features), chosen.shape[-1]).index_copy(0, places, chosen), codebook


def _on(mask: np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(mask).to(device, non_blocking=True)


def _fairseq_encoder_config(config) -> Wav2Vec2Config:
    names = (
        "encoder_layers",
        "encoder_embed_dim",
        "encoder_ffn_embed_dim",
        "encoder_attention_heads",
        "activation_fn",
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "encoder_layerdrop",
        "layer_norm_first",
        "conv_pos",
        "conv_pos_groups",
    )
    return Wav2Vec2Config(**{name: getattr(config, name) for name in names})
