"""Statistics of clips for a linear model, and the ways to centre them by groups.

Letters: N clips, M mel bands, F frames, D = 12 M statistics of a clip.
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fairseq_neupronet.data.clip_files import ClipFiles
from fairseq_neupronet.data.manifest import Manifest, clip_keys, read_labels, read_manifest, read_recordings
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.protocols import Protocol, group_clips, shuffled_profiles

PARTS = 10
_LEAST_DEVIATION = 0.1  # of a band, as a share of the clip's: a band that hardly moves is not blown up


def statistics_of_clip(spectrogram: np.ndarray) -> np.ndarray:
    """Mean and deviation of each mel band, and its means over ten parts of the clip. (M, F) → (12 M,).

    The parts' means are taken relative to the band's own mean and deviation in the clip, so that they describe its
    course in time and not its level. Parts of a clip of fewer than ten frames share frames.
    """
    wide = spectrogram.astype(np.float64)
    n_frames = wide.shape[1]
    edges = np.arange(PARTS + 1) * n_frames // PARTS
    first = np.minimum(edges[:-1], n_frames - 1)
    end = np.maximum(edges[1:], first + 1)
    sums = np.concatenate([np.zeros((len(wide), 1)), wide.cumsum(axis=1)], axis=1)
    mean, deviation = wide.mean(axis=1), wide.std(axis=1)
    parts = (sums[:, end] - sums[:, first]) / (end - first)
    course = (parts - mean[:, None]) / (deviation + _LEAST_DEVIATION * wide.std() + 1e-6)[:, None]
    return np.concatenate([mean, deviation, course.T.ravel()])


def statistics_of_split(manifest: Manifest) -> np.ndarray:
    """Of each clip of a split, (N, D).

    Raises:
        InputError: a feature file that cannot be used.
    """
    files = ClipFiles(manifest.root)
    return np.array(
        [
            statistics_of_clip(files.read(clip, manifest.n_mels, int(n_frames), manifest.line_of(row)))
            for row, (clip, n_frames) in enumerate(zip(manifest.clips, manifest.frames, strict=True))
        ]
    )


def centred(statistics: np.ndarray, groups: Grouping, alone: np.ndarray) -> np.ndarray:
    """Each clip's statistics minus their mean over the clip's group.

    Args:
        statistics: (N, D).
        groups: of the N clips.
        alone: (D,) what a clip without others is centred by: its own mean would leave nothing of it.
    """
    if groups.enrolment is None:
        sizes = np.bincount(groups.codes)
        order = np.argsort(groups.codes, kind="stable")
        means = np.add.reduceat(statistics[order], np.cumsum(sizes) - sizes, axis=0) / sizes[:, None]
        means, sizes = means[groups.codes], sizes[groups.codes]
    else:
        sizes = groups.enrolment.sizes
        means = np.array([statistics[own].mean(axis=0) for own in np.split(*_members(groups))])
    return statistics - np.where(sizes[:, None] > 1, means, alone)


def _members(groups: Grouping) -> tuple[np.ndarray, np.ndarray]:
    offsets, members = groups.enrolment
    return members, offsets[1:-1]


@dataclass
class Clips:
    """Clips with all that a protocol needs of them.

    Attributes:
        statistics: (N, D).
        target: (N,) class indices.
        profile: (N,) codes, also across splits; every clip one of its own where there are no profiles.
        split: (N,) names.
        keys: (N,) uint64 of :func:`~fairseq_neupronet.profiles.enrolment.path_keys`.
        recording: (N,) codes; None where they are not known.
    """

    statistics: np.ndarray
    target: np.ndarray
    profile: np.ndarray
    split: np.ndarray
    keys: np.ndarray
    recording: np.ndarray | None

    def take(self, rows: np.ndarray) -> "Clips":
        """Some of them."""
        arrays = {name: None if value is None else value[rows] for name, value in vars(self).items()}
        return Clips(**arrays)

    def dealt_anew(self, seed: int) -> "Clips":
        """With the profiles of each split permuted among the clips of a class."""
        profile = self.profile.copy()
        for split in np.unique(self.split).tolist():
            rows = np.flatnonzero(self.split == split)
            profile[rows] = shuffled_profiles(profile[rows], seed, split, self.target[rows])
        return replace(self, profile=profile)

    def centred(self, protocol: Protocol, seed: int, alone: np.ndarray) -> np.ndarray:
        """Their statistics (N, D), centred as a protocol has it; groups lie within a split."""
        if protocol.kind == "single":
            return self.statistics
        result = np.empty_like(self.statistics)
        for split in np.unique(self.split).tolist():
            rows = np.flatnonzero(self.split == split)
            recording = None if self.recording is None else self.recording[rows]
            groups = group_clips(protocol, self.profile[rows], keys=self.keys[rows], seed=seed, recording=recording)
            result[rows] = centred(self.statistics[rows], groups, alone)
        return result


def read_clips(folder: Path, splits: tuple[str, ...], classes: list[str]) -> tuple[Clips, list[str] | None, list[str]]:
    """The clips of some splits, the names of their profiles (None where there are none), and notes for the user.

    Raises:
        InputError: files that cannot be used, or that do not fit each other.
    """
    manifests = {split: read_manifest(folder / f"{split}.tsv") for split in splits}
    if all(manifest.profiles is None for manifest in manifests.values()):
        with contextlib.suppress(InputError):  # names that are not the official ones give no profiles either
            manifests = {split: read_manifest(folder / f"{split}.tsv", profiling=True) for split in splits}
    parts, codes, recorded, seen = [], {}, 0, {}
    for split, manifest in manifests.items():
        if manifest.n_mels != manifests["train"].n_mels:
            raise InputError(
                f"{manifest.path}: {manifest.n_mels} mel bands where {manifests['train'].path} has "
                f"{manifests['train'].n_mels}; prepare both with one recipe"
            )
        rows, profile = np.arange(len(manifest)), np.arange(len(manifest)) + (1 << 40) + recorded
        if manifest.profiles is not None:
            own = np.array([codes.setdefault(name, len(codes)) for name in manifest.profile_names])
            profile = own[manifest.profiles]
            seen[split] = set(manifest.profile_names)
        recording = read_recordings(manifest)
        parts.append(
            Clips(
                statistics_of_split(manifest),
                read_labels(manifest, classes, classes),
                profile,
                np.full(len(manifest), split),
                clip_keys(manifest, rows),
                None if recording is None else recording + recorded,
            )
        )
        recorded += len(manifest)
    if any(part.recording is None for part in parts):
        parts = [replace(part, recording=None) for part in parts]
    joined = {
        name: None if getattr(parts[0], name) is None else np.concatenate([getattr(part, name) for part in parts])
        for name in vars(parts[0])
    }
    clips = Clips(**joined)
    shared = sorted(set.intersection(*seen.values())) if len(seen) > 1 else []
    shared = shared or [name for split in list(seen)[1:] for name in sorted(seen["train"] & seen[split])]
    notes = []
    if shared:
        notes.append(
            f"profile {shared[0]} is in more than one split ({len(shared)} such profiles): figures flatter, for its "
            "sound was trained on"
        )
    counts = np.unique(clips.profile, return_counts=True)[1]
    return clips, list(codes) if codes and counts.max() > 1 else None, notes
