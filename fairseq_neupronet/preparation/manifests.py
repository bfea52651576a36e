"""Writing what training reads: manifests, labels and the dictionary, in the official layout; and a summary of it."""

import os
from collections import Counter, defaultdict
from pathlib import Path

from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.preparation.clips import SPLITS, Clip
from fairseq_neupronet.preparation.store import Stored, loose_name


def manifest_paths(folder) -> list[Path]:
    """The manifests that a partition may have."""
    return [Path(folder) / f"{split}.tsv" for split in SPLITS]


def write_partition(folder, features, clips: list[Clip], classes: list[str], stored: dict[str, Stored]) -> None:
    """Write ``{split}.tsv``, ``{split}.label`` and ``dict.label.txt``, each atomically, and only if it changes.

    Where clips know the recording that they were cut from there is ``{split}.recording`` too, an id a line.

    A manifest's first line is the features folder relative to the manifest's own, so that the prepared folder can be
    moved; then ``path <tab> n_mels <tab> n_frames <tab> profile``. A split without clips gets no files, and those of an
    earlier run are removed. The dictionary's line is ``label <space> training clips``; its order is ``classes``.

    Args:
        folder: where the manifests go.
        features: the features folder.
        clips: the partition's clips; manifests keep their order.
        classes: class names in their fixed order.
        stored: where and in which shape the features are, by ``Clip.key``.

    Raises:
        InputError: a file cannot be written.
    """
    folder = Path(folder)
    root = Path(os.path.relpath(features, folder)).as_posix()
    counts = Counter(clip.label for clip in clips if clip.split == "train")
    _write_lines(folder / "dict.label.txt", [f"{name} {counts[name]}" for name in classes])
    for split, manifest in zip(SPLITS, manifest_paths(folder), strict=True):
        labels, recordings = manifest.with_suffix(".label"), manifest.with_suffix(".recording")
        members = [clip for clip in clips if clip.split == split]
        if not members:
            manifest.unlink(missing_ok=True)
            labels.unlink(missing_ok=True)
            recordings.unlink(missing_ok=True)
            continue
        _write_lines(labels, [clip.label for clip in members])
        if all(clip.recording is None for clip in members):
            recordings.unlink(missing_ok=True)
        else:
            _write_lines(recordings, [clip.recording or "" for clip in members])
        _write_lines(manifest, [root, *(_row(clip, stored[clip.key]) for clip in members)])


def _row(clip: Clip, stored: Stored) -> str:
    n_mels, n_frames = stored.shape
    return f"{stored.place or loose_name(clip.key)}\t{n_mels}\t{n_frames}\t{clip.profile}"


def _write_lines(path: Path, lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if path.is_file() and path.read_bytes() == text.encode():
        return
    with atomic_file(path) as stream:
        stream.write(text)


# ---- what was prepared, and what its composition gives away ----------------------------------------------------------


def summarise(clips: list[Clip], classes: list[str]) -> list[str]:
    """Describe one partition: clips per class, profile and split, then warnings.

    A group whose composition is known answers questions about its clips without their sound (NeuProNet evaluated
    transductively); each warning counts the profiles and names the controls that show how much that is worth.

    Args:
        clips: the partition's clips.
        classes: class names in their fixed order.

    Returns:
        Lines to print.
    """
    splits = [split for split in SPLITS if any(clip.split == split for clip in clips)]
    per_class = Counter((clip.label, clip.split) for clip in clips)
    groups = _groups(clips)
    width = max(map(len, ("class", "clips per profile", *classes))) + 2

    def row(title: str, cells) -> str:
        return title.ljust(width) + "".join(str(cell).rjust(9) for cell in cells)

    lines = [row("class", splits)]
    lines += [row(name, (per_class[name, split] for split in splits)) for name in classes]
    totals = {split: sum(clip.split == split for clip in clips) for split in splits}
    lines.append(row("all clips", totals.values()))
    lines.append(row("profiles", (len(groups[split]) for split in splits)))
    lines.append(row("clips per profile", (f"{totals[split] / len(groups[split]):.1f}" for split in splits)))
    return lines + [f"warning: {text}" for text in _warnings(groups, classes)]


def _groups(clips: list[Clip]) -> dict[str, dict[str, Counter]]:
    """split → profile → clips per class."""
    groups = defaultdict(lambda: defaultdict(Counter))
    for clip in clips:
        groups[clip.split][clip.profile][clip.label] += 1
    return groups


def _warnings(groups, classes) -> list[str]:
    warnings = [f"no clips in split {split}: no {split}.tsv was written" for split in SPLITS if split not in groups]
    in_splits = Counter(profile for profiles in groups.values() for profile in profiles)
    shared = [profile for profile, count in in_splits.items() if count > 1]
    if shared:
        warnings.append(
            f"{len(shared)} of {len(in_splits)} profiles lie in two splits or more (e.g. {shared[0]}): "
            "sources that are tested on are trained on as well"
        )
    several = [counts for profiles in groups.values() for counts in profiles.values() if counts.total() > 1]
    pure = sum(len(counts) == 1 for counts in several)
    if pure:
        warnings.append(
            f"{pure} of {len(several)} profiles with two clips or more hold one class only: whoever sees "
            "the group can vote; compare with the controls majority vote and mean probability"
        )
    balanced = [counts for counts in several if len(counts) == len(classes) > 1 and len(set(counts.values())) == 1]
    if balanced:
        single = sum(counts.total() == len(classes) for counts in balanced)
        warnings.append(
            f"{len(balanced)} of {len(several)} profiles with two clips or more hold each class equally "
            f"often ({single} of them one clip of each class): whoever sees the group can deal the labels "
            "out; compare with the controls balanced assignment and profile-centred logits"
        )
    return warnings
