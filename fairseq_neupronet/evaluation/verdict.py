"""One plain sentence: what the group is worth before any network."""

import math

import numpy as np

SINGLE, CONTROL = "single", "dealt_anew"


def verdict(correct: dict, differences: dict[str, dict], target: np.ndarray, profile: np.ndarray | None) -> str:
    """Say whether centring by the group helps, helps no more than its control, does nothing, or harms.

    Args:
        correct: protocol, or protocol+dealt_anew → (N,) 1 where the clip was classified right.
        differences: protocol → its gains over ``single`` and ``dealt_anew``, each with its interval.
        target: (N,) class indices.
        profile: (N,) codes; None where there are none.
    """
    if profile is None:
        return "There are no groups here, so that nothing can be said of what a group is worth."
    name = max(differences, key=reach, default=None)
    gains = differences.get(name, {})
    if SINGLE not in gains or CONTROL not in gains:
        return "What a group is worth needs two protocols: single, and full or enrol-N."
    over_single, over_control = gains[SINGLE], gains[CONTROL]
    shown = (
        f"{name} − single {_points(over_single)}, against groups dealt anew within each class {_points(over_control)}"
    )
    one_class = _of_one_class(target, profile)
    if over_single["high"] < 0:
        sentence = f"Before any network, centring by the group is harmful here: {shown}"
    elif over_single["low"] > 0 and over_control["low"] > 0:
        gain = 100 * over_single["difference"]
        return f"Before any network, the group is worth {gain:.1f} points here, and its sound is why: {shown}."
    elif over_single["low"] > 0:
        return (
            "Before any network, the group helps here, but groups of other profiles' clips with the same classes help "
            f"as much, so that its sound is not shown to be worth anything: {shown}."
        )
    else:
        sentence = f"Before any network, the group is not shown to be worth anything here: {shown}"
    if one_class > 0.5:
        sentence += (
            f"; {one_class:.0%} of the clips are in groups of one class, and centring by such a group removes the class"
        )
    return sentence + "."


def reach(name: str) -> float:
    """How many clips besides itself a clip's group has, at most, by the protocol's name."""
    named = {SINGLE: 0.0, "full": math.inf}
    return named[name] if name in named else int(name.rpartition("-")[2])


def _points(gain: dict) -> str:
    return f"{100 * gain['difference']:+.1f} points ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"


def _of_one_class(target: np.ndarray, profile: np.ndarray) -> float:
    """The share of clips, among those whose group has others, whose group holds one class only."""
    _, codes, sizes = np.unique(profile, return_inverse=True, return_counts=True)
    n_classes = np.bincount(np.unique(np.column_stack([codes, target]), axis=0)[:, 0])
    grouped = sizes[codes] > 1
    return float((n_classes[codes] == 1)[grouped].mean()) if grouped.any() else 0.0
