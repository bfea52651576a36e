"""fairseq model ``spectrogram_wav2vec2``: the profile extractor in pretraining.

Trained with fairseq's own ``wav2vec`` criterion. Letters: B clips, M mel bands, F frames, A anchors, N negatives.
"""

import numpy as np
import torch
from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from fairseq_neupronet.backbones.wav2vec2.network import Randomness, SpectrogramWav2Vec2
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.fairseq_configs import SpectrogramWav2Vec2Config
from fairseq_neupronet.networks.neupronet import autocast


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
