"""Channels-last maps as tables. Letters: B clips, C channels, H × W cells."""

from torch import Tensor

PORTION = 2**21  # numbers of a map that are worked on at a time: 8 MiB


def portions(n_clips: int, n_numbers: int) -> list[slice]:
    """Clips that are worked on together.

    Args:
        n_clips: B.
        n_numbers: of a clip's map.
    """
    size = max(1, PORTION // n_numbers)
    return [slice(start, start + size) for start in range(0, n_clips, size)]


def cells(image: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last order → a view (B, H · W, C)."""
    return image.permute(0, 2, 3, 1).flatten(1, 2)


def rows(image: Tensor) -> Tensor:
    """(B, C, H, W) in channels-last order → a view (B · H · W, C)."""
    return image.permute(0, 2, 3, 1).flatten(0, 2)


def image(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of :func:`cells`; also of :func:`rows` where these are unflattened to clips."""
    return cells.unflatten(-2, size).permute(0, 3, 1, 2)


class Padded:
    """Room for a map with zeros around it: what is written there need not be copied to be padded.

    Args:
        like: for device and type.
        shape: (B, H, W, C) of the map.
        pad: (left, right, top, bottom).
    """

    def __init__(self, like: Tensor, shape: tuple[int, int, int, int], pad: tuple[int, int, int, int]):
        n_clips, height, width, n_channels = shape
        left, right, top, bottom = pad
        padded = like.new_empty(n_clips, top + height + bottom, left + width + right, n_channels)
        padded[:, :top], padded[:, top + height :] = 0, 0
        padded[:, :, :left], padded[:, :, left + width :] = 0, 0
        self.image = padded.permute(0, 3, 1, 2)  # (B, C, H, W), padded
        self.inside = padded[:, top : top + height, left : left + width]  # (B, H, W, C)


def pad_image(image: Tensor, pad: tuple[int, int, int, int]) -> Tensor:
    """``F.pad`` of zeros for a channels-last map (B, C, H, W), which would fill all of it before it copies."""
    padded = Padded(image, image.permute(0, 2, 3, 1).shape, pad)
    padded.inside.copy_(image.permute(0, 2, 3, 1))
    return padded.image
