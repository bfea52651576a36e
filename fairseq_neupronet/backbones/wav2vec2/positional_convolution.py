"""fairseq's convolutional position embedding over the taps that a clip's steps can reach. Letters: B clips, C width,
T steps."""

import torch.nn.functional as F
from torch import Tensor, nn


class PositionalConvolution(nn.Sequential):
    """The same numbers and the same parameters as the ``pos_conv`` of fairseq's wav2vec 2.0, for fewer products.

    Its kernel has 128 taps, and a clip of one second 16 steps: 97 of the taps meet padding only.

    Args:
        pos_conv: fairseq's: weight-normalised convolution, trimming of an even kernel's last step, GELU.
    """

    def __init__(self, pos_conv: nn.Sequential):
        super().__init__(*pos_conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) → (B, C, T)."""
        convolution, _, activation = self
        n_taps, n_steps = convolution.kernel_size[0], x.shape[2]
        middle = n_taps // 2
        reach = slice(max(0, middle - n_steps + 1), middle + n_steps)
        direction = convolution.weight_v[:, :, reach]
        weight = direction * (convolution.weight_g[:, :, reach] / direction.norm(dim=(0, 1), keepdim=True))
        output = F.conv1d(x, weight, convolution.bias, padding=middle - reach.start, groups=convolution.groups)
        return activation(output[:, :, :n_steps])
