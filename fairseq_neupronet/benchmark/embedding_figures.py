"""Figures of one cell's embeddings: t-SNE maps, and the attention weights within groups.

Letters: N clips, D embedding width, G clips of a group.
"""

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from fairseq_neupronet.benchmark.figures import COLOURS
from fairseq_neupronet.benchmark.source import Embeddings, Source

_MOST_CLIPS = 1500
_MOST_PROFILES = 10
_GROUPS = 3
_LARGEST_GROUP = 30
_KINDS = ("clip", "profile", "fused")


def tsne_maps(embeddings: Embeddings, title: str) -> Figure | None:
    """Maps (van der Maaten and Hinton 2008) of clip, profile and fused embeddings, coloured by class and by profile.

    The profiles of most clips have colours, the others are grey. At most 1,500 clips are drawn, chosen at random.
    """
    kinds = [kind for kind in _KINDS if kind in embeddings.arrays]
    if {"clip", "fused"} <= set(kinds) and np.array_equal(embeddings.arrays["clip"], embeddings.arrays["fused"]):
        kinds.remove("fused")  # nothing is fused where there is no profile
    target = embeddings.arrays["target"]
    profile = embeddings.arrays.get("profile_code", np.arange(len(target)))
    if len(target) < 5 or not kinds:
        return None
    chosen = np.sort(np.random.default_rng(0).permutation(len(target))[:_MOST_CLIPS])
    target, profile = target[chosen], profile[chosen]
    codes, counts = np.unique(profile, return_counts=True)
    largest = codes[np.argsort(-counts, kind="stable")][:_MOST_PROFILES]
    figure, axes = plt.subplots(2, len(kinds), figsize=(4.2 * len(kinds) + 1.6, 8), squeeze=False)
    for column, kind in enumerate(kinds):
        vectors = embeddings.arrays[kind][chosen].astype(np.float32)
        perplexity = min(30, (len(vectors) - 1) / 3)
        place = TSNE(perplexity=perplexity, init="random", random_state=0).fit_transform(vectors)
        for panel in axes[:, column]:
            panel.set_xticks([])
            panel.set_yticks([])
        axes[0, column].set_title(f"{kind} embeddings")
        for number, name in enumerate(embeddings.classes):
            _dots(axes[0, column], place[target == number], COLOURS[number % len(COLOURS)], name)
        _dots(axes[1, column], place[~np.isin(profile, largest)], "lightgrey", "other profiles")
        for number, code in enumerate(largest):
            _dots(axes[1, column], place[profile == code], COLOURS[number % len(COLOURS)], f"profile {code}")
    for panel, name in zip(axes[:, 0], ("class", "profile"), strict=True):
        panel.set_ylabel(f"coloured by {name}")
    for panel in axes[:, -1]:
        panel.legend(bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False, markerscale=2, fontsize=8)
    figure.suptitle(f"{title}: t-SNE")
    figure.tight_layout()
    return figure


def _dots(panel, place: np.ndarray, colour, label: str) -> None:
    panel.scatter(*place.T, s=8 if len(place) > 100 else 16, color=colour, label=label, linewidths=0)


def attention_weights(clip: np.ndarray, profile: np.ndarray, temperature: float) -> np.ndarray:
    """Weights of pooling ``dot`` within one group: softmax over j of p_j · e_i / temperature.

    Args:
        clip, profile: (G, D) embeddings e and p.
        temperature: of the softmax.

    Returns:
        (G, G), a row per clip that attends.
    """
    scores = clip.astype(np.float64) @ profile.astype(np.float64).T / temperature
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def attention_map(embeddings: Embeddings, title: str) -> Figure | None:
    """The weights within three groups, clips ordered by class.

    None where the model's pooling is not ``dot``, or where a group was not all clips of the profile.
    """
    if embeddings.protocol != "full":
        return None
    arrays, model = embeddings.arrays, embeddings.config.get("model", {})
    if not {"clip", "profile", "profile_code"} <= arrays.keys() or model.get("pooling") != "dot":
        return None
    codes, counts = np.unique(arrays["profile_code"], return_counts=True)
    fitting = codes[(counts > 1) & (counts <= _LARGEST_GROUP)]
    if not len(fitting):
        return None
    sizes = dict(zip(codes, counts, strict=True))
    groups = sorted(fitting, key=lambda code: (-sizes[code], code))[:_GROUPS]
    figure, axes = plt.subplots(1, len(groups), figsize=(4.4 * len(groups) + 0.8, 4.8), squeeze=False)
    for panel, code in zip(axes[0], groups, strict=True):
        rows = np.flatnonzero(arrays["profile_code"] == code)
        rows = rows[np.argsort(arrays["target"][rows], kind="stable")]
        weights = attention_weights(arrays["clip"][rows], arrays["profile"][rows], float(model["temperature"]))
        image = panel.imshow(weights, cmap="magma", vmin=0, vmax=max(weights.max(), 2 / len(rows)))
        names = [embeddings.classes[number] for number in arrays["target"][rows]]
        panel.set_xticks(range(len(rows)), names, rotation=90, fontsize=7)
        panel.set_yticks(range(len(rows)), names, fontsize=7)
        panel.set_title(f"profile {code}: {len(rows)} clips, uniform {1 / len(rows):.3f}", fontsize=9)
        figure.colorbar(image, ax=panel, fraction=0.046, pad=0.03)
    axes[0, 0].set_ylabel("clip that attends")
    figure.suptitle(f"{title}: attention weights within groups")
    figure.tight_layout()
    return figure


def figures_of_embeddings(source: Source, dataset: str):
    """Yields (name, figure) for each variant that has embeddings."""
    for model in source.models(dataset):
        embeddings = source.embeddings(dataset, model)
        if embeddings is not None:
            title = f"{dataset}, {model}, {embeddings.where}"
            yield f"tsne_{model}", tsne_maps(embeddings, title)
            yield f"attention_{model}", attention_map(embeddings, title)
