"""Channels-last maps as tables. Letters: B clips, C channels, H × W cells."""

from torch import Tensor

PORTION = 2**20  # numbers of a map that are worked on at a time: 4 MiB


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
