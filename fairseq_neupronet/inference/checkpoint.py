"""A checkpoint of fine-tuning and its network: configuration, weights, classes, feature recipe, in plain torch.

Letters: M mel bands, F frames.
"""

import hashlib
import importlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.checkpoints.contents import read_contents
from fairseq_neupronet.data.manifest import read_classes, read_manifest
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.adaptive_batch_norm import has_batch_norm
from fairseq_neupronet.networks.build import build_network
from fairseq_neupronet.networks.in_groups import InGroups
from fairseq_neupronet.networks.neupronet import NeuProNet
from fairseq_neupronet.profiles.normalization import BandNormalization, BandStatistics

_TRAINING_WEIGHTS = ("auto_encoder.", "bank.")


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, as read.

    Attributes:
        path: the file.
        model: the model's configuration.
        weights: by name, without what serves training only.
        classes: K names in index order.
        recipe: how its features are computed.
        fixed_frames: frames that every clip is padded to; None where a clip keeps its own.
        most_frames: F at most; a longer clip is cut into windows of so many. None: the checkpoint does not know.
        normalize: clips have zero mean and unit variance.
        bfloat16: embeddings are computed in bfloat16.
        bands: normalises mel bands by a clip's group; None where the model was trained without.
        adaptive_batch_norm: how many clips the training's statistics count as, where a group's are taken; None: those
            of the training alone.
    """

    path: Path
    model: SimpleNamespace
    weights: dict[str, Tensor]
    classes: list[str]
    recipe: FeatureRecipe
    fixed_frames: int | None
    most_frames: int | None
    normalize: bool
    bfloat16: bool
    bands: BandNormalization | None
    adaptive_batch_norm: float | None = None

    def digest(self) -> str:
        """SHA-256 of everything that an embedding depends on, in hexadecimal: weights, recipe, treatment of clips."""
        bands = [self.bands.prior.to_dict(), self.bands.prior_frames] if self.bands else None
        recipe = self.recipe.to_dict() | {"name": ""}
        settings = [recipe, self.fixed_frames, self.most_frames, self.normalize, self.bfloat16, bands]
        if self.adaptive_batch_norm is not None:
            settings.append(self.adaptive_batch_norm)
        total = hashlib.sha256(json.dumps(settings).encode())
        for name in sorted(self.weights):
            weight = self.weights[name]
            total.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            total.update(weight.reshape(-1).view(torch.uint8).numpy())
        return total.hexdigest()


def read_checkpoint(path: str | Path, recipe=None, data: str | Path | None = None) -> Checkpoint:
    """Read a checkpoint of fine-tuning; nothing in it is run.

    Args:
        path: ``checkpoint_best.pt`` of a training, or a converted official checkpoint.
        recipe: the feature recipe (a :class:`FeatureRecipe`, a name or a yaml file), where the checkpoint has none.
        data: the data folder that it was trained on, where it was converted without its data.

    Raises:
        InputError: no such file, damaged, of another kind, trained with an option that this version no longer has; or a
            checkpoint that lacks what is not given here.
    """
    contents = read_contents(path)
    path, model, task = contents.path, contents.config["model"], contents.config["task"]
    if contents.is_extractor:
        raise InputError(
            f"{path}: a pretrained profile extractor, which knows no classes; give a checkpoint of fine-tuning"
        )
    known = _known_data(contents.data, data)
    classes = known.get("classes")
    if not classes:
        raise InputError(
            f"{path}: was converted without its data and knows no class names; give the folder that it "
            "was trained on (data=DIR, --data DIR), or convert it again with --data DIR"
        )
    if len(classes) != model["n_classes"]:
        raise InputError(
            f"{path}: has {model['n_classes']} classes, the data {len(classes)}; give the folder that it was trained on"
        )
    longest = known.get("fixed_frames")
    limits = [frames for frames in (longest, task["max_sample_size"]) if frames]
    fixed = str(task["padding"]) == "fixed"
    if fixed and longest is None:
        raise InputError(
            f"{path}: was converted without its data and does not know its longest training clip; give "
            "the folder that it was trained on (data=DIR, --data DIR)"
        )
    grouping = model["grouping"] if model["grouping"] == "none" else "in_batch"
    return Checkpoint(
        path=path,
        model=namespace(model | {"grouping": grouping, "auto_encoder": False}),
        weights={name: weight for name, weight in contents.weights.items() if not name.startswith(_TRAINING_WEIGHTS)},
        classes=list(classes),
        recipe=_recipe(path, known.get("recipe"), recipe, model["n_mels"]),
        fixed_frames=longest if fixed else None,
        most_frames=min(limits) if limits else None,
        normalize=bool(task["normalize"]),
        bfloat16=bool(task["bfloat16"]),
        bands=_band_normalization(path, task, known.get("band_statistics")),
        adaptive_batch_norm=_adaptive_batch_norm(path, task["adaptive_batch_norm"]),
    )


def namespace(values: dict) -> SimpleNamespace:
    """A section of a configuration, and the sections in it, with its options as attributes."""
    return SimpleNamespace(
        **{name: namespace(value) if isinstance(value, dict) else value for name, value in values.items()}
    )


def _known_data(task_state: dict, data: str | Path | None) -> dict:
    if data is None:
        return task_state
    folder = Path(data)
    manifest = read_manifest(folder / "train.tsv")
    recipe = FeatureRecipe.read(manifest.root)
    here = {
        "classes": read_classes(folder / "dict.label.txt"),
        "fixed_frames": int(manifest.frames.max()),
        "recipe": recipe.to_dict() if recipe else None,
    }
    return here | {name: value for name, value in task_state.items() if value is not None}


def _band_normalization(path: Path, task: dict, statistics: dict | None) -> BandNormalization | None:
    if not task["profile_normalize"]:
        return None
    if statistics is None:
        raise InputError(
            f"{path}: was trained with task.profile_normalize=true and does not hold the training split's "
            "statistics; train it again with this version"
        )
    return BandNormalization(BandStatistics.from_dict(statistics), float(task["profile_normalize_prior"]))


def _adaptive_batch_norm(path: Path, prior) -> float | None:
    if prior is None:
        return None
    if not isinstance(prior, int | float) or not 0 <= prior < math.inf:
        raise InputError(
            f"{path}: its task.adaptive_batch_norm is {prior!r}, a number of clips is wanted; the file is "
            "damaged or was not written by this package"
        )
    return float(prior)


def _recipe(path: Path, stored: dict | None, given, n_mels: int) -> FeatureRecipe:
    if given is not None and not isinstance(given, FeatureRecipe):
        given = FeatureRecipe.load(given, n_mels=n_mels)
    stored = FeatureRecipe.from_dict(stored) if stored else None
    if stored and given and stored != given:
        raise InputError(
            f"{path}: was trained on features of recipe {stored.describe()}, not {given.describe()}; "
            "leave the recipe out"
        )
    recipe = stored or given
    if recipe is None:
        raise InputError(
            f"{path}: does not say how its features were computed, since their folder had no recipe.yaml "
            "in training; name the recipe (recipe=NAME, --recipe NAME), such as official or kaldi_fbank"
        )
    if recipe.n_mels != n_mels:
        raise InputError(
            f"{path}: the model has {n_mels} mel bands, recipe {recipe.describe()} another number; name "
            "the recipe of its training"
        )
    return recipe


def trained_network(path: Path, config, weights: dict[str, Tensor]) -> NeuProNet:
    """Build and fill a network.

    Args:
        path: the checkpoint, for messages.
        config: of :func:`~fairseq_neupronet.networks.build.build_network`.
        weights: by name, all that the network has and no others.

    Raises:
        InputError: weights that do not fit the configuration, or an unknown backbone.
    """
    network = build_network(config)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{path}: its weights do not fit its configuration ({reason}); was it made by another version of this "
            "package?"
        ) from None
    return network


def load_network(checkpoint: Checkpoint) -> NeuProNet:
    """Build and fill the network, in evaluation mode, without gradients.

    Raises:
        InputError: weights that do not fit the configuration, or an unknown backbone.
    """
    network = trained_network(checkpoint.path, checkpoint.model, checkpoint.weights)
    if checkpoint.adaptive_batch_norm is not None and not has_batch_norm(network.backbone):
        raise InputError(
            f"{checkpoint.path}: task.adaptive_batch_norm is set, and its backbone has no batch norm; the "
            "file was not written by this package"
        )
    network.bands_by_group = checkpoint.bands is not None
    network.norms_by_group = checkpoint.adaptive_batch_norm is not None
    return network.eval().requires_grad_(False)


def import_user_dir(folder: str | Path) -> None:
    """Import a package of the user's own, which registers backbones.

    Raises:
        InputError: no such package.
    """
    folder = Path(folder).resolve()
    if not (folder / "__init__.py").is_file():
        raise InputError(f"--user-dir {folder}: no package with an __init__.py; give the folder of your own backbone")
    sys.path.insert(0, str(folder.parent))
    importlib.import_module(folder.name)


def in_groups(checkpoint: Checkpoint, network: NeuProNet) -> InGroups:
    """The network of :func:`load_network` in use on clips and their groups, as the checkpoint says."""
    return InGroups(
        network, checkpoint.bands, checkpoint.adaptive_batch_norm, checkpoint.fixed_frames, checkpoint.bfloat16
    )
