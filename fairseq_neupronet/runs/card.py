"""A model card: what a checkpoint is, what it was made of, how well it did and what that means, in Markdown.

The idea of a card is that of Mitchell et al., "Model cards for model reporting", FAT* 2019. Everything that a
checkpoint holds is read from it; splits and validation figures are added at a training's end, when they are at hand.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from fairseq_neupronet import __version__
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.checkpoints.contents import Contents, read_contents
from fairseq_neupronet.config.stages import CLASSIFIER, EXTRACTOR
from fairseq_neupronet.profiles.profile import Needs

CARD = "MODEL_CARD.md"
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "auc")
_KINDS = {CLASSIFIER: "classifier", EXTRACTOR: "pretrained profile extractor"}
_BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")  # of batch norm

PROTOCOLS = """\
A clip's prediction may use other clips of its profile, so that a figure means nothing without its protocol. `single`:
each clip alone. `enrol-N`: the clip and N other clips of its profile, without their labels. `full`: all clips of its
profile in the split. Under the last two, knowledge of which labels a group usually holds helps as well as its sound;
`neupronet evaluate` prints controls that tell the two apart.
"""


@dataclass(frozen=True)
class Split:
    """What a split of the data folder holds.

    Attributes:
        name: train, valid, test.
        clips: how many of each class, in index order.
        profiles: how many; None where they are not known.
    """

    name: str
    clips: list[int]
    profiles: int | None


@dataclass(frozen=True)
class Measured:
    """What is known at a training's end only.

    Attributes:
        splits: of the data folder.
        subset: that ``figures`` are of.
        figures: protocol → name → value, the same names under each.
        n_clips: of the subset.
    """

    splits: list[Split] = field(default_factory=list)
    subset: str = "valid"
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    n_clips: int = 0


def card_of(path: str | Path) -> str:
    """The card beside a checkpoint, if it is of this very file; otherwise one made from the checkpoint alone.

    Raises:
        InputError: no such file, damaged, or not a checkpoint of ours.
    """
    contents = read_contents(path)
    card = contents.path.with_name(CARD)
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        if contents.digest in text:
            return text
    return write_card(contents)


def write_card(contents: Contents, measured: Measured | None = None) -> str:
    """The text of a checkpoint's card."""
    measured, data = measured or Measured(), contents.data
    config = defaultdict(dict, {section: content for section, content in contents.config.items() if content})
    sections = [
        _heading(contents),
        _model(config, contents),
        _data(config, data, measured.splits),
        _features(config, data),
        _training(config, contents),
    ]
    if not contents.is_extractor:
        sections += [_figures(config, measured), _limits(config, data), _use(config, contents.path)]
    return "\n".join(sections)


# ---- sections --------------------------------------------------------------------------------------------------------


def _heading(contents: Contents) -> str:
    kind = _KINDS[contents.config["model"]["_name"]]
    return (
        f"# Model card: {contents.path.name}\n\nA {kind} of [NeuProNet](https://doi.org/10.1007/s00521-023-09361-8), "
        f"made by fairseq-neupronet; card written by version {__version__}.\n\n"
        f"- {moment(contents)}\n- SHA-256 of the file: `{contents.digest}`\n"
    )


def depends_on_profiles(config: dict) -> bool:
    """Whether a model's outputs for a clip may depend on the clips of its profile, by its configuration."""
    return Needs.of(config["task"], config["model"]).any


def moment(contents: Contents) -> str:
    """When in its training a checkpoint was saved: epoch and update."""
    epoch, updates = ("unknown" if number is None else number for number in (contents.epoch, contents.updates))
    return f"epoch {epoch}, update {updates}"


def _model(config: dict, contents: Contents) -> str:
    model = config["model"]
    n_parameters = sum(
        weight.numel()
        for name, weight in contents.weights.items()
        if not (name.startswith("bank.") or name.endswith(_BUFFERS))
    )
    rows = {"parameters": f"{n_parameters:,}"}
    if contents.is_extractor:
        rows |= {name: model.get(name) for name in ("conv_feature_layers", "encoder_layers", "encoder_embed_dim")}
    else:
        rows |= {"backbone": model.get("backbone"), "embedding width": model.get("decoder_embed_dim")}
        if config["task"].get("profiling"):
            rows |= {name: model[name] for name in ("grouping", "pooling", "fusion", "head") if name in model}
            rows["profile extractor"] = "pretrained" if model.get("profile_extractor_path") else "trained with the rest"
        elif not depends_on_profiles(config):
            rows["profiles"] = "none: each clip is classified alone"
    if config["task"].get("profile_normalize"):
        rows["mel bands"] = "normalised over the clips of a profile"
    if config["task"].get("adaptive_batch_norm") is not None:
        rows["batch norm"] = "by the statistics of a profile's clips, in evaluation"
    return "## Model\n\n" + _table(("", ""), rows.items())


def _data(config: dict, data: dict, splits: list[Split]) -> str:
    task = config["task"]
    lines = [f"## Data\n\nTrained on the folder `{task.get('data')}`."]
    classes = data.get("classes")
    if not classes:
        return lines[0] + "\n"
    if not splits:
        splits = [Split("train", data.get("train_clips") or [], None)]
    rows = [
        (name, *(split.clips[number] if split.clips else "" for split in splits)) for number, name in enumerate(classes)
    ]
    rows.append(("**clips**", *(sum(split.clips) for split in splits)))
    if any(split.profiles is not None for split in splits):
        rows.append(("**profiles**", *("" if split.profiles is None else split.profiles for split in splits)))
    if task.get("shuffle_profiles") is not None:
        lines.append("\nThe profiles were **shuffled** among the clips, as a control: this model is not for use.")
    return "\n".join(lines) + "\n\n" + _table(("class", *(split.name for split in splits)), rows)


def _features(config: dict, data: dict) -> str:
    recipe, task = data.get("recipe"), config["task"]
    if not recipe:
        return (
            f"## Features\n\nSpectrograms of {data.get('n_mels', 'an unknown number of')} mel bands; how they were "
            "computed is not known, since their folder had no recipe.yaml.\n"
        )
    rows = {"recipe": FeatureRecipe.from_dict(recipe).name} | {
        name: value for name, value in recipe.items() if name != "name" and value is not None
    }
    frames = data.get("fixed_frames")
    if frames:
        seconds = frames * recipe["hop_length"] / recipe["sample_rate"]
        treatment = "padded or cut to" if str(task.get("padding")) == "fixed" else "in training at most"
        rows["length"] = f"{treatment} {frames} frames ({seconds:.2f} s)"
    if task.get("normalize"):
        rows["normalisation"] = "zero mean and unit variance per clip"
    return "## Features\n\n" + _table(("", ""), rows.items())


def _training(config: dict, contents: Contents) -> str:
    optimization, optimizer = config["optimization"], config["optimizer"]
    criterion, task, dataset = config["criterion"], config["task"], config["dataset"]
    rows = {
        "updates at most": optimization.get("max_update") or "no limit",
        "epochs at most": optimization.get("max_epoch") or "no limit",
        "batch size": dataset.get("batch_size"),
        "optimiser": f"{optimizer.get('_name')}, learning rate {_listed(optimization.get('lr') or [])}, weight decay "
        f"{optimizer.get('weight_decay')}",
        "schedule": config["lr_scheduler"].get("_name"),
        "seed": config["common"].get("seed"),
    }
    if "class_weights" in criterion:
        rows["classes weighted"] = _listed(criterion["class_weights"] or ["uniformly"])
    if task.get("profiling"):
        rows["weights of the losses"] = _listed(criterion.get("loss_weights") or [])
    augmented = [name for name in ("specaug", "frequency_warp", "mixup", "profile_batches") if task.get(name)]
    if criterion.get("label_smoothing"):
        rows["label smoothing"] = criterion["label_smoothing"]
    rows["augmentation and batches"] = ", ".join(augmented) or "plain"
    chosen_by = f"{config['checkpoint'].get('best_checkpoint_metric')} on {_first_subset(dataset)}"
    best = "" if contents.best is None else f", best {contents.best:.4f}"
    rows["checkpoint chosen by"] = chosen_by + best
    return "## Training\n\n" + _table(("", ""), rows.items())


def _first_subset(dataset: dict) -> str:
    return str(dataset.get("valid_subset", "valid")).split(",")[0]


def _figures(config: dict, measured: Measured) -> str:
    if not measured.figures:
        return "## Figures\n\nNot measured for this card: `neupronet evaluate` gives them, by protocol.\n\n" + PROTOCOLS
    names = next(iter(measured.figures.values()))
    rows = [
        (protocol, *("" if math.isnan(value) else f"{value:.4f}" for value in figures.values()))
        for protocol, figures in measured.figures.items()
    ]
    return (
        f"## Figures\n\nOn `{measured.subset}`, {measured.n_clips} clips. The checkpoint was chosen by its "
        f"{config['checkpoint'].get('best_checkpoint_metric')} on this split (protocol "
        f"`{config['task'].get('protocol')}`), so that these figures flatter; report those of a test split.\n\n"
        + _table(("protocol", *names), rows)
        + "\n"
        + PROTOCOLS
    )


def _limits(config: dict, data: dict) -> str:
    lines = [
        "It knows the classes above and no other: any sound gets one of them. Probabilities are not calibrated.",
        "It was trained on the recordings above; other microphones, rooms and groups of people or machines may lower "
        "its figures, and only a test on such sound tells.",
    ]
    if depends_on_profiles(config):
        lines.append(
            "Its profiles are the data's own; a profile without enrolled clips is classified as under `single`."
        )
    counts = [count for count in data.get("train_clips") or [] if count]
    if counts and max(counts) >= 5 * min(counts):
        lines.append(f"Classes are unequal (from {min(counts)} to {max(counts)} training clips): mind macro figures.")
    return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)


def _use(config: dict, path: Path) -> str:
    predict = f"neupronet predict --path {path.name} FILE…"
    if depends_on_profiles(config):
        predict += f"\nneupronet enrol --path {path.name} --bank BANK.npz --profile NAME RECORDINGS…"
        predict += f"\nneupronet predict --path {path.name} --bank BANK.npz --profile NAME FILE…"
    return f"## Use\n\n```\n{predict}\n```\n"


def _table(head: tuple, rows) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def _listed(values) -> str:
    return ", ".join(map(str, values))
