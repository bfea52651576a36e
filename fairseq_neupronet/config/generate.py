"""Writes the files that show users every option: the ``options.yaml`` of both stages and ``configs/README.md``.

``python -m fairseq_neupronet.config.generate`` prints them, with ``--write`` it writes them into a checkout.
"""

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fairseq_neupronet.config.criterion import PretrainingCriterionOptions
from fairseq_neupronet.config.model import SpectrogramWav2Vec2Options
from fairseq_neupronet.config.option import REQUIRED, default_of
from fairseq_neupronet.config.stages import STAGES, written
from fairseq_neupronet.files import atomic_file, configs_folder

_YAML = """\
# Every option of {stage} with its default, so that each can be overridden by name on the command line; and where
# outputs go. The recipes beside this file build on it.
# Generated from fairseq_neupronet/config: python -m fairseq_neupronet.config.generate --write

hydra:
  callbacks:
    training_run:
      _target_: fairseq_neupronet.runs.run.TrainingRun  # folder names, resumption, "finished already"
  job:
    chdir: false  # relative paths mean what they mean in the shell
  run:
    dir: outputs/${{hydra:job.config_name}}/${{neupronet_run:${{hydra:overrides.task}}}}
  sweep:
    dir: outputs/${{hydra:job.config_name}}
    subdir: ${{neupronet_run:${{hydra:overrides.task}}}}
"""
_PAGE = """\
# Options

Every option is set by its name, on the command line (`fairseq-hydra-train … task.profiling=true`) or in a recipe.
`finetuning/options.yaml` and `pretraining/options.yaml` hold every one with its default, the recipes beside them what
differs, each number with its source. What the official code calls them: [official
checkpoints](../examples/official_checkpoints/README.md). This page and these two files are generated from
`fairseq_neupronet/config` by `python -m fairseq_neupronet.config.generate --write`.

Most trainings need only the options of the first three sections.

## Data, profiles and evaluation

{task}

## Loss of fine-tuning

{criterion}

## Model

{model}

The networks `model.transformer.*` and `model.profile_extractor.*`, and `model.*` in pretraining, have the options of
fairseq's wav2vec 2.0:

{network}

## Advanced

What the official code has beside the method, details, and what is read from the data:

{advanced}

Of the networks:

{advanced_network}

Of the loss of pretraining, which is fairseq's own criterion `wav2vec`:

{pretraining_criterion}
"""


def options_yaml(stage: str) -> str:
    """The text of a stage's ``options.yaml``: every option with its default, and its help as a comment."""
    lines = [_YAML.format(stage="fine-tuning" if stage == "finetuning" else stage)]
    for name, section in STAGES[stage].items():
        lines += [f"{name}:", f"  _name: {section.name}", *_yaml_lines(section.options, name, "  "), ""]
    return "\n".join(lines[:-1]) + "\n"


def _yaml_lines(options: type, section: str, indent: str) -> Iterator[str]:
    for field in written(options, section):
        value = default_of(field)
        if dataclasses.is_dataclass(value):
            yield f"{indent}{field.name}:  # {_help(field)}"
            yield from _yaml_lines(type(value), f"{section}.{field.name}", f"{indent}  ")
        else:
            yield f"{indent}{field.name}: {_yaml_value(value)}  # {_help(field)}"


def _yaml_value(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _help(field: dataclasses.Field) -> str:
    """An option's help, and its choices where the help does not name them."""
    text, choices = field.metadata["help"], field.metadata["choices"]
    return text if all(choice in text for choice in choices) else f"{text}; one of {', '.join(choices)}"


def options_page() -> str:
    """The text of ``configs/README.md``: the options that most trainings need, then the advanced ones."""
    sections = {f"{name}.": section.options for name, section in STAGES["finetuning"].items()}
    network = {"": SpectrogramWav2Vec2Options}
    return _PAGE.format(
        **{name.rstrip("."): _table({name: options}) for name, options in sections.items()},
        network=_table(network),
        advanced=_table(sections, advanced=True),
        advanced_network=_table(network, advanced=True),
        pretraining_criterion=_table({"criterion.": PretrainingCriterionOptions}, advanced=True),
    )


def _table(sections: dict[str, type], advanced: bool = False) -> str:
    """A table of the options of some dataclasses; the keys are what their names begin with."""
    rows = [row for prefix, options in sections.items() for row in _rows(prefix, options, advanced)]
    return "\n".join(["| option | default | |", "|---|---|---|", *rows])


def _rows(prefix: str, options: type, advanced: bool) -> Iterator[str]:
    for field in written(options, prefix.rstrip(".")):
        name, value = prefix + field.name, default_of(field)
        if field.metadata["advanced"] == advanced:
            yield f"| `{name}` | {_page_value(value)} | {_help(field)} |"
        if dataclasses.is_dataclass(value) and not isinstance(value, SpectrogramWav2Vec2Options):
            yield from _rows(f"{name}.", type(value), advanced)


def _page_value(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        return "see below"
    if value in (None, REQUIRED):
        return "unset" if value is None else "required"
    text = _yaml_value(value).strip("'")
    return f"`{text}`" if set(text) & set("[${") else text


def generated() -> dict[str, str]:
    """The generated files: path below ``configs`` → text."""
    return {f"{stage}/options.yaml": options_yaml(stage) for stage in STAGES} | {"README.md": options_page()}


def main() -> None:
    """Print the generated files, or write them."""
    parser = argparse.ArgumentParser(prog="python -m fairseq_neupronet.config.generate", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write them into configs/ instead of printing them")
    write = parser.parse_args().write
    for name, text in generated().items():
        if not write:
            print(text)
            continue
        with atomic_file(Path(configs_folder(), name)) as stream:
            stream.write(text)


if __name__ == "__main__":
    main()
