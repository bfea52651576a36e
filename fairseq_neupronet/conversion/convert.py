"""One official checkpoint made ours, from reading to writing."""

from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from fairseq_neupronet.conversion.model_config import ClassifierOptions
from fairseq_neupronet.conversion.networks import NetworkOptions, Settings
from fairseq_neupronet.conversion.official import CLASSIFIER, EXTRACTOR, OfficialCheckpoint
from fairseq_neupronet.conversion.parameters import convert_optimizer, convert_parameters
from fairseq_neupronet.conversion.report import Report
from fairseq_neupronet.conversion.training_config import TrainingOptions, convert_extra_state, convert_history
from fairseq_neupronet.data.manifest import describe_training_data, read_classes, read_manifest
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file, configs_folder, package_folder

_OURS = ("task", "model", "criterion")
# The schedule's length stays that of the optimisation, so that one option changes both.
_INTERPOLATED = ("task.seed", "lr_scheduler.max_update", "lr_scheduler.total_num_update")


@dataclass(frozen=True)
class Conversion:
    """What to convert, and how.

    Attributes:
        official: the official checkpoint.
        out: the file to write.
        data: the folder that the model was trained on, in the official layout; None leaves classes and recipe open.
        extractor: official pretraining checkpoint that tells the profile extractor's settings; None where the
            classifier's own configuration does.
        recipe: yaml file to write, with which training goes on; None for none.
        optimizer: take the optimiser's state over.
        force: overwrite.
    """

    official: str | Path
    out: str | Path
    data: str | None = None
    extractor: str | Path | None = None
    recipe: str | Path | None = None
    optimizer: bool = True
    force: bool = False


def convert(conversion: Conversion) -> list[str]:
    """Write a checkpoint of ours from an official one.

    Returns:
        The report's lines.

    Raises:
        InputError: see :class:`OfficialCheckpoint`, :class:`ClassifierOptions` and :func:`convert_parameters`; or an
            output that exists already. Nothing is written then.
    """
    _check_outputs(conversion)
    official = OfficialCheckpoint.read(conversion.official)
    extractor = None if conversion.extractor is None else OfficialCheckpoint.read(conversion.extractor)
    report = Report()
    config, task_state = convert_configuration(official, report, extractor, conversion.data)
    parameters = convert_parameters(official, config.model)
    if task_state is None:
        report.note(
            "task_state: official checkpoints hold no class names, longest clip or recipe; classes are those of the "
            "folder that the model is used on (dict.label.txt), as in the official code; --data DIR stores all of it"
        )
        # What a checkpoint knows of its data by itself.
        task_state = {"n_mels": int(config.model.n_mels)}
    else:
        _check_data(official, task_state, config.model, conversion.data)
        report.map(f"--data {conversion.data}", "task_state", ", ".join(task_state))
    optimizer = None
    if conversion.optimizer:
        optimizer = convert_optimizer(official, parameters, report)
    else:
        report.note(
            "last_optimizer_state: left out, as asked; training from it begins with a fresh optimiser at update 0"
        )
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    state = {
        "args": None,
        "cfg": plain,
        "model": parameters.weights,
        "criterion": None,
        "optimizer_history": convert_history(official, report),
        "task_state": task_state,
        "extra_state": convert_extra_state(official, report),
        "last_optimizer_state": optimizer,
    }
    with atomic_file(conversion.out, "wb") as stream:
        torch.save(state, stream)
    if conversion.recipe is not None:
        stage = "finetuning" if official.kind == CLASSIFIER else "pretraining"
        _write_recipe(conversion.recipe, plain, report.options, stage, conversion.out)
    report.account(
        official.config, official.kind, {section: plain[section] for section in ("task", "model", "criterion")}
    )
    n_numbers = sum(value.numel() for value in parameters.weights.values())
    return [
        *report.lines(),
        f"{conversion.out}: {len(parameters.weights)} parameters and buffers, {n_numbers} numbers",
    ]


def convert_configuration(
    official: OfficialCheckpoint,
    report: Report,
    extractor: OfficialCheckpoint | None = None,
    data: str | None = None,
) -> tuple[DictConfig, dict | None]:
    """Our configuration for an official checkpoint.

    Args:
        official: the checkpoint.
        report: gets a line for each option that is converted.
        extractor: as :class:`Conversion` has it, read.
        data: as :class:`Conversion` has it.

    Returns:
        The configuration, and the task state that training on the data would have stored, None without data.

    Raises:
        InputError: options or data that are unsound or contradict the parameters; an extractor that is none.
    """
    training = TrainingOptions(official, report)
    state = None if data is None else _read_data_state(official, training.target.task, data)
    if extractor is not None and extractor.kind != EXTRACTOR:
        raise InputError(f"--extractor {extractor.path}: a classifier, where a pretrained extractor is wanted")
    if official.kind == CLASSIFIER:
        model = ClassifierOptions(official, report, extractor, state and state["n_mels"]).model
    elif extractor is not None:
        raise InputError(f"--extractor: {official.path} is an extractor itself; leave the option out")
    else:
        settings = Settings("model", official.section("model"), task=official.section("task"))
        model = NetworkOptions(official, settings, report).model
    model._name = "NeuProNet" if official.kind == CLASSIFIER else "spectrogram_wav2vec2"
    training.set_model(model, state and state.get("classes"))
    return training.target, state


def _check_outputs(conversion: Conversion) -> None:
    out = Path(conversion.out)
    for path in (out, conversion.recipe and Path(conversion.recipe)):
        if path and path.exists():
            if not path.is_file() or path.samefile(conversion.official):
                raise InputError(f"{path}: is a folder, or the official checkpoint itself; name another file")
            if not conversion.force:
                raise InputError(f"{path}: exists already; name another file, or overwrite it with --force")


def _read_data_state(official: OfficialCheckpoint, task_config: DictConfig, data: str) -> dict:
    """The task state that training on a folder would have stored; see :func:`describe_training_data`.

    Args:
        official: the checkpoint.
        task_config: our task section.
        data: the folder that the model was trained on, in the official layout.

    Raises:
        InputError: a folder, manifest, label file or dictionary that is missing or unsound.
    """
    folder = Path(data)
    if not folder.is_dir():
        raise InputError(f"--data {data}: no such folder; give the one that the model was trained on")
    classes = read_classes(folder / "dict.label.txt") if official.kind == CLASSIFIER else None
    manifest = read_manifest(folder / "train.tsv", task_config.profiling)
    return describe_training_data(manifest, task_config.max_sample_size, classes)


def _check_data(official: OfficialCheckpoint, state: dict, model: DictConfig, data: str) -> None:
    """Compare the data with the network.

    Raises:
        InputError: another mel count or another number of classes.
    """
    if state["n_mels"] != model.n_mels:
        raise InputError(
            f"--data {data}: {state['n_mels']} mel bands, the network of {official.path} has {model.n_mels}; give the "
            "data that it was trained on"
        )
    if official.kind == CLASSIFIER and len(state["classes"]) != model.n_classes:
        raise InputError(
            f"--data {data}: dict.label.txt has {len(state['classes'])} classes, the head of {official.path} "
            f"{model.n_classes}; give the data that it was trained on"
        )


def _write_recipe(path: Path | str, config: dict, options: set[str], stage: str, checkpoint: str | Path) -> None:
    """Write a configuration for ``fairseq-hydra-train`` that goes on from a converted checkpoint.

    Args:
        path: the yaml file.
        config: the converted checkpoint's configuration.
        options: dotted names of its options that the official checkpoint decided.
        stage: ``finetuning`` or ``pretraining``.
        checkpoint: the converted checkpoint.
    """
    recipe = OmegaConf.load(configs_folder() / stage / "options.yaml")
    settings = OmegaConf.create(config)
    for option in sorted(options):
        section, _, name = option.partition(".")
        unknown = section in _OURS and OmegaConf.select(recipe, option, default=option) == option
        if section in config and name and not unknown and option not in _INTERPOLATED:
            OmegaConf.update(recipe, option, OmegaConf.select(settings, option), force_add=True)
    for section in ("optimizer", "lr_scheduler"):
        if config[section]:
            OmegaConf.update(recipe, f"{section}._name", config[section]["_name"], force_add=True)
    # Evaluation on several processes gathers the embeddings of whole batches.
    OmegaConf.update(recipe, "common.all_gather_list_size", 2**25, force_add=True)
    OmegaConf.update(recipe, "common.user_dir", str(package_folder()), force_add=True)
    OmegaConf.update(recipe, "checkpoint.save_dir", "${hydra:runtime.output_dir}/checkpoints", force_add=True)
    # Unlike restore_file it gives way to the run's own checkpoint_last.pt when the same command is started again.
    OmegaConf.update(recipe, "checkpoint.continue_once", str(Path(checkpoint).resolve()), force_add=True)
    with atomic_file(path) as stream:
        stream.write("# Goes on with an official training; written by `neupronet convert`.\n\ndefaults:\n- _self_\n\n")
        stream.write(OmegaConf.to_yaml(recipe))
