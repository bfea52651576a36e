"""What was prepared, and what its composition gives away."""

from collections import Counter, defaultdict

from fairseq_neupronet.preparation.clips import SPLITS, Clip


def summarise(clips: list[Clip], classes: list[str]) -> list[str]:
    """Describe one partition: clips per class, profile and split, then warnings.

    A group whose composition is known answers questions about its clips without being heard (NeuProNet evaluated
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
            "training has heard sources that it is tested on"
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
