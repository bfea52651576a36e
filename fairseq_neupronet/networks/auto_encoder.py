"""The official ``auto_encoder`` option: tie the fused embedding to a bottleneck of the clip's mean spectrum.

Tensor letters: B clips, M mel bands, E width of the fused embedding, H width of both alignment layers.

The official version crashes for every backbone. What it meant, with its two defects mended: the target of the
divergence is a distribution (it was fed unnormalised), and SupCon gets L2-normalised features.
"""

from contextlib import nullcontext
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.backbones.registry import running_statistics
from fairseq_neupronet.networks.losses import supcon_loss


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _blocks(*widths: int) -> list[nn.Module]:
    return [
        layer
        for in_width, out_width in pairwise(widths)
        for layer in (nn.Linear(in_width, out_width), nn.BatchNorm1d(out_width), nn.ReLU())
    ]


class AutoEncoderLoss(nn.Module):
    """An auto-encoder of the mean spectrum whose bottleneck the fused embedding has to resemble.

    With a the mean spectrum, z its L2-normalised bottleneck, h_a = ReLU(linear(z)) and
    h_f = ReLU(linear(L2-normalised fused embedding)), the loss is

        B · (MSE(reconstruction, a) + weight · KL + weight · SupCon),

    KL = the sum over clips of KL(softmax h_a ‖ softmax h_f) with h_a detached (``kl_div`` of prediction h_f and target
    h_a), SupCon = the supervised contrastive loss of the pair (h_a, h_f) as two views without labels, temperature and
    base temperature .07, mode all.

    Args:
        n_mels: M.
        fused_width: E.
        hidden: width of the four hidden layers on each side.
        bottleneck: width of the code.
        align_width: H.
        weight: of KL and of SupCon, 5e-4 in the official code.
    """

    temperature = 0.07

    def __init__(
        self,
        n_mels: int,
        fused_width: int,
        hidden: int = 128,
        bottleneck: int = 8,
        align_width: int = 128,
        weight: float = 5e-4,
    ):
        super().__init__()
        self.weight = weight
        self.encoder = nn.Sequential(*_blocks(n_mels, *[hidden] * 4, bottleneck))
        self.decoder = nn.Sequential(*_blocks(bottleneck, *[hidden] * 4), nn.Linear(hidden, n_mels))
        self.align_code = nn.Linear(bottleneck, align_width)
        self.align_fused = nn.Linear(fused_width, align_width)

    def _apply(self, fn, recurse: bool = True):
        # Stays in float32 where the model is made half: sums of squares of spectra reach beyond float16.
        return super()._apply(lambda tensor: _widened(fn(tensor)), recurse)

    def forward(self, time_average: Tensor, fused: Tensor) -> Tensor:
        """Compute the loss to be added, a sum over clips like the classification loss; never in half precision.

        Args:
            time_average: (B, M) mean of the spectrogram over unpadded frames.
            fused: (B, E) fused embedding.

        Returns:
            Scalar. In training, a batch of one clip passes through batch norm by the running statistics, and leaves
            them as they are.
        """
        with torch.autocast(fused.device.type, enabled=False):
            return self._loss(_widened(time_average), _widened(fused))

    def _loss(self, time_average: Tensor, fused: Tensor) -> Tensor:
        n_clips = len(time_average)
        # One clip has no variance, and torch refuses it in training.
        with running_statistics(self) if n_clips < 2 else nullcontext():
            code = F.normalize(self.encoder(time_average), dim=-1)
            reconstruction = self.decoder(code)
        h_code = F.relu(self.align_code(code))
        h_fused = F.relu(self.align_fused(F.normalize(fused, dim=-1)))

        squared = (reconstruction - time_average).square().mean(1).sum()
        divergence = F.kl_div(F.log_softmax(h_fused, dim=-1), F.softmax(h_code.detach(), dim=-1), reduction="sum")
        views = F.normalize(torch.stack([h_code, h_fused], dim=1), dim=-1)
        contrast = supcon_loss(views, temperature=self.temperature, base_temperature=self.temperature, mode="all")
        return squared + n_clips * self.weight * (divergence + contrast)
