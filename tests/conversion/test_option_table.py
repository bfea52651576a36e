"""The table of official options: complete, unambiguous, and of names that exist."""

import importlib.metadata
import re
from pathlib import Path

import official_keys
import pytest
import torch
from fairseq import options
from fairseq.criterions import CRITERION_REGISTRY
from fairseq.criterions.wav2vec_criterion import Wav2VecCriterionConfig
from fairseq.dataclass.configs import FairseqConfig
from fairseq.models import MODEL_REGISTRY
from fairseq.optim import OPTIMIZER_REGISTRY
from fairseq.optim.adam import FairseqAdamConfig
from fairseq.optim.lr_scheduler.fixed_schedule import FixedLRScheduleConfig
from fairseq.optim.lr_scheduler.tri_stage_lr_scheduler import TriStageLRScheduleConfig
from fairseq.tasks import TASK_REGISTRY
from hydra.conf import HydraConf
from official import REFERENCE
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

import fairseq_neupronet.tasks  # noqa: F401
from fairseq_neupronet.checkpoints.texts import leaves
from fairseq_neupronet.cli import main
from fairseq_neupronet.conversion import CLASSIFIER, EXTRACTOR
from fairseq_neupronet.conversion.option_table import OPTIONS
from fairseq_neupronet.criterions.neupronet import NeuProNetCriterionConfig
from fairseq_neupronet.evaluation.metrics import ICBHI_METRICS, METRICS
from fairseq_neupronet.models.neupronet import NeuProNetConfig
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config
from fairseq_neupronet.tasks.spectrogram_finetuning import SpectrogramFinetuningConfig
from fairseq_neupronet.tasks.spectrogram_pretraining import SpectrogramTaskConfig

ROOT = Path(__file__).parents[2]
KEYS = {CLASSIFIER: official_keys.CLASSIFIER_KEYS, EXTRACTOR: official_keys.EXTRACTOR_KEYS}
ROWS = [(row, section.kind) for section in OPTIONS for row in section.rows]
# Options that NEUPRONET.md names and the reference checkpoints do not hold.
ELSEWHERE = ["model.cnn_arch", "model.num_mels"]
REGISTRIES = {
    "task": TASK_REGISTRY,
    "model": MODEL_REGISTRY,
    "criterion": CRITERION_REGISTRY,
    "optimizer": OPTIMIZER_REGISTRY,
}
OUR_SECTIONS = {
    CLASSIFIER: {"task": SpectrogramFinetuningConfig, "criterion": NeuProNetCriterionConfig, "model": NeuProNetConfig},
    EXTRACTOR: {"task": SpectrogramTaskConfig, "criterion": Wav2VecCriterionConfig, "model": SpectrogramWav2Vec2Config},
}
FAIRSEQ = OmegaConf.structured(FairseqConfig())
SECTIONS_ALIKE = {
    "optimizer": [FairseqAdamConfig],
    "lr_scheduler": [TriStageLRScheduleConfig, FixedLRScheduleConfig],
    "hydra": [HydraConf],
}


def our_sections(section: str, kind: str | None) -> list:
    """Typed configurations of ours or fairseq's that such a section may be."""
    kinds = OUR_SECTIONS if kind is None else (kind,)
    found = SECTIONS_ALIKE.get(section) or [OUR_SECTIONS[each][section] for each in kinds if section in REGISTRIES]
    found = [OmegaConf.structured(dataclass()) for dataclass in found]
    return found or [FAIRSEQ._get_node(section)] * (section in FAIRSEQ)


def holds(config, option: str) -> bool:
    for part in option.split(".") if option else ():
        if not OmegaConf.is_config(config) or part not in config.keys():  # noqa: SIM118 (a missing value is no key otherwise)
            return False
        config = config._get_node(part)
    return True


def is_option(name: str, kind: str | None) -> bool:
    """Whether ``section.option`` or ``section.option=value`` is one of ours."""
    key, given, value = name.partition("=")
    section, _, option = key.partition(".")
    found = [config for config in our_sections(section, kind) if holds(config, option)]
    if option == "_name" and given:
        return bool(found) and value in REGISTRIES[section]
    try:
        return bool(found) and (not given or OmegaConf.update(found[0], option, value) is None)
    except OmegaConfBaseException:
        return False


def covered(row, kind: str | None) -> list[str]:
    """Official keys that the row stands for: those that it names, and those of the checkpoints."""
    kinds = KEYS if kind is None else (kind,)
    fitting = {key for each in kinds for key in KEYS[each] if OPTIONS.find(key, each) is row}
    return sorted(fitting | {key for key in row.keys if "*" not in key})


# ---- every official option -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEYS)
def test_every_stored_key_has_a_row(kind):
    assert len(KEYS[kind]) == {CLASSIFIER: 697, EXTRACTOR: 323}[kind]
    assert [key for key in KEYS[kind] if OPTIONS.find(key, kind) is None] == []


def test_every_key_of_the_extractor_within_a_classifier_has_a_row():
    keys = [key.removeprefix("model.w2v_args.") for key in KEYS[CLASSIFIER] if key.startswith("model.w2v_args.model.")]
    assert len(keys) > 50
    assert [key for key in keys if OPTIONS.find(key, EXTRACTOR) is None] == []


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference checkpoints are not here (NEUPRONET_REFERENCE)")
@pytest.mark.parametrize(
    ("name", "kind"),
    [("neupronet", CLASSIFIER), ("pretrain", EXTRACTOR), ("pretrain_quantized", EXTRACTOR)],
)
def test_the_keys_are_those_of_the_reference_checkpoints(name, kind):
    config = torch.load(REFERENCE / f"official_{name}.pt", weights_only=True)["cfg"]
    assert sorted(key for key, _ in leaves(config)) == sorted(KEYS[kind])


def test_every_row_stands_for_an_option():
    """A key of the checkpoints, or one of those that other checkpoints of the official code hold."""
    found = [OPTIONS.find(key, kind) for kind in KEYS for key in [*KEYS[kind], *ELSEWHERE]]
    rows = [row for section in OPTIONS if section.name != "files" for row in section.rows]
    assert [row.official for row in rows if row not in found] == []


# ---- every name of ours --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "kind"), ROWS, ids=lambda value: getattr(value, "official", ""))
def test_every_name_of_ours_exists(row, kind):
    quoted = re.findall(r"`([^`]+)`", row.ours)
    assert quoted or row.ours == "leave it out"
    commands = {entry.name for entry in importlib.metadata.entry_points(group="console_scripts")}
    for name in quoted:
        if name.endswith("*"):
            keys = [key for key in covered(row, kind) if not key.startswith("model.w2v_args.")]
            assert keys or row.official == "model.w2v_args.model.*"
            for key in keys:
                renamed = name.replace("*", key if name == "*" else key.rpartition(".")[2])
                assert is_option(renamed, kind), renamed
        elif name.startswith("--"):
            parser = options.get_validation_parser(default_task="spectrogram_finetuning")
            assert name in parser.format_help()
        elif "." in name:
            assert is_option(name, kind), name
        else:
            command, *sub_command = name.split()
            assert name in (*METRICS, *ICBHI_METRICS) or (command in commands and sub_command in ([], ["convert"]))


@pytest.mark.parametrize(
    ("key", "ours", "values"),
    [
        ("model.npn_option", "grouping", ["whole_split", "in_batch"]),
        ("model.use_profile_attention", "pooling", ["profile", "cosine", "dot", "mean"]),
        ("model.tensor_fusion", "fusion", ["gate", "tensor", "concat"]),
        ("model.clf_hidden_dim", "head", ["mlp"]),
    ],
)
def test_values_in_a_note_are_choices(key, ours, values):
    row = OPTIONS.find(key, CLASSIFIER)
    for value in values:
        assert re.search(rf"\b{value}\b", row.note)
        assert is_option(f"model.{ours}={value}", CLASSIFIER)


def test_the_checks_of_names_can_fail():
    assert not is_option("model.fuse", CLASSIFIER)
    assert not is_option("model.fusion=concatenate", CLASSIFIER)
    assert not is_option("task._name=audio", CLASSIFIER)
    assert not is_option("model.fusion", EXTRACTOR)
    assert OPTIONS.find("task.no_such_option", CLASSIFIER) is None


# ---- where it is shown ---------------------------------------------------------------------------------------------


def test_the_readme_holds_the_table():
    assert f"\n\n{OPTIONS.markdown()}\n" in (ROOT / "examples" / "official_checkpoints" / "README.md").read_text(
        encoding="utf-8"
    )


def test_nothing_is_unsupported():
    assert "support" not in OPTIONS.markdown()


@pytest.mark.parametrize("arguments", [["convert", "--options"], ["convert", "--help"]])
def test_the_command_prints_the_table(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    words = set(re.findall(r"[\w{}.*-]+", printed))
    for row, _ in ROWS:
        assert set(row.official.split()) <= words, row.official
        assert set(re.findall(r"[\w.*-]+", row.ours)) <= words, row.ours
    if arguments[1] == "--options":
        lines = printed.splitlines()
        assert max(map(len, lines)) <= 120
        starts = {re.match(r"  .{36}  ", line) is not None for line in lines if line.startswith(" ") and len(line) > 40}
        assert starts == {True}
