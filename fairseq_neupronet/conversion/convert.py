"""One official checkpoint made ours, from reading to writing."""

from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import OmegaConf, open_dict

from fairseq_neupronet.conversion.data_state import check_data, partial_state, read_data_state
from fairseq_neupronet.conversion.model_config import ClassifierConfig, extractor_config
from fairseq_neupronet.conversion.official import CLASSIFIER, EXTRACTOR, OfficialCheckpoint
from fairseq_neupronet.conversion.parameters import convert_parameters
from fairseq_neupronet.conversion.recipe_yaml import write_recipe
from fairseq_neupronet.conversion.report import Report
from fairseq_neupronet.conversion.training_config import check_class_weights, convert_training, name_normal_class
from fairseq_neupronet.conversion.training_state import convert_extra_state, convert_history, convert_optimizer
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file


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
        InputError: see :class:`OfficialCheckpoint`, :class:`ClassifierConfig` and :func:`convert_parameters`; or an
            output that exists already. Nothing is written then.
    """
    _check_outputs(conversion)
    official = OfficialCheckpoint.read(conversion.official)
    extractor = None if conversion.extractor is None else OfficialCheckpoint.read(conversion.extractor)
    report = Report()
    config = convert_training(official, report)
    data_state = None
    if conversion.data is not None:
        data_state = read_data_state(official, config.task, conversion.data)
    with open_dict(config):
        config.model = _model_config(official, report, extractor, data_state)
        config.model._name = "NeuProNet" if official.kind == CLASSIFIER else "spectrogram_wav2vec2"
    if official.kind == CLASSIFIER:
        check_class_weights(official, config, report)
        name_normal_class(official, config, data_state and data_state["classes"], report)
    parameters = convert_parameters(official, config.model)
    if data_state is None:
        task_state = partial_state(official, config.model, report)
    else:
        check_data(official, data_state, config.model, conversion.data)
        task_state = data_state
        report.map(f"--data {conversion.data}", "task_state", ", ".join(data_state))
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
        write_recipe(conversion.recipe, plain, report.options, stage, conversion.out)
    report.account(official.config, {section: plain[section] for section in ("task", "model", "criterion")})
    n_numbers = sum(value.numel() for value in parameters.weights.values())
    return [
        *report.lines(),
        f"{conversion.out}: {len(parameters.weights)} parameters and buffers, {n_numbers} numbers",
    ]


def _model_config(official: OfficialCheckpoint, report: Report, extractor, data_state: dict | None):
    if extractor is not None and extractor.kind != EXTRACTOR:
        raise InputError(f"--extractor {extractor.path}: a classifier, where a pretrained extractor is wanted")
    if official.kind == CLASSIFIER:
        return ClassifierConfig(official, report, extractor, data_state and data_state["n_mels"]).target
    if extractor is not None:
        raise InputError(f"--extractor: {official.path} is an extractor itself; leave the option out")
    return extractor_config(official, report)


def _check_outputs(conversion: Conversion) -> None:
    out = Path(conversion.out)
    for path in (out, conversion.recipe and Path(conversion.recipe)):
        if path and path.exists():
            if not path.is_file() or path.samefile(conversion.official):
                raise InputError(f"{path}: is a folder, or the official checkpoint itself; name another file")
            if not conversion.force:
                raise InputError(f"{path}: exists already; name another file, or overwrite it with --force")
