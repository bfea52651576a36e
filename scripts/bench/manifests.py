"""A manifest of a million rows: reading it, an item of it, and its batches by profile."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import material
from bench.comparison import Comparison, Figure, Options, Run, Side, Wanted
from bench.memory import growth_mib
from bench.timing import seconds

_FEW = 1000
_BATCHES_A_RUN = 20
_BATCH, _CLIPS_PER_PROFILE = 128, 8


def comparisons(options: Options) -> list[Comparison]:
    many = 100_000 if options.quick else 1_000_000
    share = many / 1_000_000  # what is wanted of a million is wanted of its share
    large, small = material.manifest_path(options, many), material.manifest_path(options, _FEW)

    def write() -> None:
        for rows in (many, _FEW):
            material.write_manifest(options, rows)

    rows = f"{many:,} rows"
    return [
        Comparison(
            "manifest",
            (
                Figure(f"reading a manifest of {rows}", "time", "s", Wanted("ours", most=3 * share)),
                Figure(f"memory that reading {rows} adds", "growth", "MiB", Wanted("ours", most=300 * share)),
            ),
            Side(partial(our_reading, large)),
            Side(partial(plain_reading, large)),
            setup=write,
            fresh=True,
        ),
        Comparison(
            "items",
            (
                Figure(f"an item at {rows}, read and collated", "item", "ms"),
                Figure(
                    f"an item at {rows} over one at {_FEW:,}, with SpecAugment",
                    "growth",
                    "times",
                    Wanted("ours", most=1.1),
                    compared=False,
                ),
                Figure(
                    f"batches by profile of {many:,} clips, an epoch", "batches", "s", Wanted("ours", most=5 * share)
                ),
            ),
            Side(partial(our_items, large, small)),
            Side(partial(plain_items, large)),
            setup=write,
        ),
    ]


def our_reading(path: Path) -> Run:
    from fairseq_neupronet.data.manifest import read_manifest

    return partial(_time_and_growth, lambda: read_manifest(path, profiling=True))


def plain_reading(path: Path) -> Run:
    return partial(_time_and_growth, lambda: plain_manifest(path))


def plain_manifest(path: Path) -> tuple[Path, list[list[str]], list[int]]:
    """Folder, rows and profile codes, as a loop reads them; nothing is checked."""
    with open(path, encoding="utf-8") as stream:
        root = Path(next(stream).rstrip("\n"))
        rows = [line.rstrip("\n").split("\t") for line in stream]
    codes: dict[str, int] = {}
    return path.parent / root, rows, [codes.setdefault(row[3], len(codes)) for row in rows]


def _time_and_growth(read) -> dict[str, float]:
    took = []

    def timed():
        kept = []
        took.append(seconds(lambda: kept.append(read())))
        return kept

    return {"growth": growth_mib(timed), "time": took[0]}


def _dataset(path: Path, training: bool = False, **options):
    from fairseq_neupronet.data.dataset import DatasetOptions, SpectrogramDataset
    from fairseq_neupronet.data.manifest import read_manifest

    options = DatasetOptions(training=training, seed=1, **options)
    return SpectrogramDataset(read_manifest(path, profiling=True), None, "train", options)


def our_items(large: Path, small: Path) -> Run:
    """As torch's loader asks for them, a batch at a time."""
    from fairseq_neupronet.data.augmentation import SpecAugment

    def timed(path: Path, **options) -> Callable[[], float]:
        data = _dataset(path, **options)
        return _timed_batches(lambda numbers: data.collater(data.__getitems__(numbers)), len(data))

    time_items = timed(large)
    time_large, time_small = (timed(path, training=True, augment=SpecAugment()) for path in (large, small))
    by_profile = _dataset(large, training=True, clips_per_profile=_CLIPS_PER_PROFILE)
    epoch = 0

    def batches() -> None:
        nonlocal epoch
        epoch += 1
        by_profile.set_epoch(epoch)
        by_profile.batch_by_size(by_profile.ordered_indices(), max_sentences=_BATCH)

    return lambda: {"item": time_items(), "growth": time_large() / time_small(), "batches": seconds(batches)}


def plain_items(path: Path) -> Run:
    """Items as a loop reads them; batches of shuffled profiles cut into chunks, which are shuffled and joined."""
    import random

    import numpy as np
    import torch

    root, rows, profiles = plain_manifest(path)

    def load(numbers: list[int]) -> dict:
        source = torch.stack([torch.from_numpy(np.load(root / rows[number][0])) for number in numbers])
        return {"source": source, "profile": torch.tensor([profiles[number] for number in numbers])}

    time_items = _timed_batches(load, len(rows))

    def batches() -> list[list[int]]:
        members: dict[int, list[int]] = {}
        for row, profile in enumerate(profiles):
            members.setdefault(profile, []).append(row)
        chunks = []
        for own in members.values():
            random.shuffle(own)
            chunks += [own[start : start + _CLIPS_PER_PROFILE] for start in range(0, len(own), _CLIPS_PER_PROFILE)]
        random.shuffle(chunks)
        per_batch = _BATCH // _CLIPS_PER_PROFILE
        return [sum(chunks[start : start + per_batch], []) for start in range(0, len(chunks), per_batch)]

    return lambda: {"item": time_items(), "batches": seconds(batches)}


def _timed_batches(load: Callable[[list[int]], object], n_rows: int) -> Callable[[], float]:
    """Milliseconds an item, of random batches."""
    import numpy as np

    rng = np.random.default_rng(0)

    def time() -> float:
        batches = rng.integers(n_rows, size=(_BATCHES_A_RUN, _BATCH)).tolist()

        def load_all() -> None:
            for numbers in batches:
                load(numbers)

        return 1000 * seconds(load_all) / (_BATCHES_A_RUN * _BATCH)

    return time
