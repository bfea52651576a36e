"""Random stretching of the frequency axis, for whole batches. Letters: B clips, M mel bands, F frames."""

import numpy as np
import torch
from torch import Tensor

from fairseq_neupronet.errors import InputError


class FrequencyWarp:
    """Stretch each clip's frequencies by a factor of its own, as if its voice had a longer or shorter vocal tract.

    Vocal tract length perturbation (Jaitly and Hinton, ICML workshop on deep learning for audio, 2013), on mel bands:
    a band takes the value that is read, linearly between bands, at its centre times the factor. Beyond the outermost
    centres these bands are read.

    Args:
        limit: the factor's logarithm is uniform between −limit and limit; above 0, at most 1.
        centres: (M,) of the bands, in Hz, increasing.

    Raises:
        InputError: another limit.
    """

    DRAWS = 1  # of a clip: its factor

    def __init__(self, limit: float, centres: np.ndarray):
        if not 0 < limit <= 1:
            raise InputError(
                f"task.frequency_warp={limit}: give a number above 0, at most 1 (.1 stretches by some 10 "
                "%), or leave it unset for none"
            )
        self.limit, self.centres = limit, np.asarray(centres, float)

    def __call__(self, source: Tensor, uniform: np.ndarray) -> Tensor:
        """Stretch.

        Args:
            source: (B, M, F) float, zeros on padding, which stay.
            uniform: (B, DRAWS) in [0, 1).

        Returns:
            (B, M, F), a changed copy.
        """
        factor = np.exp((2 * uniform[:, 0] - 1) * self.limit)
        bands = np.arange(len(self.centres))
        place = np.interp(factor[:, None] * self.centres, self.centres, bands)  # (B, M), fractions of bands
        lower = np.minimum(place.astype(np.int64), max(len(bands) - 2, 0))
        share = torch.from_numpy((place - lower).astype(np.float32)).to(source.device).unsqueeze(2)
        lower = torch.from_numpy(lower).to(source.device).unsqueeze(2).expand_as(source)
        upper = (lower + 1).clamp_(max=len(bands) - 1)
        return torch.lerp(source.gather(1, lower), source.gather(1, upper), share)
