"""Converting does with every official option what its row of the table says."""

import copy
from pathlib import Path

import official_checkpoints as fakes
import pytest
from omegaconf import OmegaConf

from fairseq_neupronet.checkpoints.texts import leaves
from fairseq_neupronet.conversion import CLASSIFIER, EXTRACTOR
from fairseq_neupronet.conversion.convert import convert_configuration
from fairseq_neupronet.conversion.model_config import ClassifierOptions
from fairseq_neupronet.conversion.networks import NetworkOptions
from fairseq_neupronet.conversion.official import OfficialCheckpoint
from fairseq_neupronet.conversion.option_table import OPTIONS
from fairseq_neupronet.conversion.report import Report, TableRun
from fairseq_neupronet.conversion.training_config import TrainingOptions
from fairseq_neupronet.errors import InputError

# Which class converts a section's rows.
CONVERTERS = dict.fromkeys(("task", "criterion", "optimizer", "lr_scheduler", "training"), TrainingOptions)
CONVERTERS |= {"classifier": ClassifierOptions, "network": NetworkOptions}
STATES = {CLASSIFIER: fakes.classifier(), EXTRACTOR: fakes.extractor()}
# Options of ours that the parameters decide, and with which a configuration has to agree.
SIZES = "n_mels conv_feature_layers encoder_layers encoder_embed_dim encoder_ffn_embed_dim conv_pos conv_pos_groups"
DECIDED = {CLASSIFIER: ["task.profiling"], EXTRACTOR: [f"model.{size}" for size in (*SIZES.split(), "final_dim")]}
# A value that differs from the one in the checkpoints here, and from our default.
OTHERS = {
    "model.extractor_mode": "layer_norm",
    "model.activation_fn": "relu",
    "model.mask_selection": "uniform",
    "model.mask_channel_selection": "uniform",
    "model.latent_temp": [1.5, 0.25, 0.5],
    "criterion.loss_weights": [0.5, 0.25],
    "criterion.class_weights": [4.0, 3.0, 2.0, 1.0],
    "common.log_format": "json",
    "optimization.lr": [0.25],
    "optimization.update_freq": [3],
    "distributed_training.ddp_backend": "legacy_ddp",
}
# For each other method: an official option, its value, an option of ours and what it becomes; one case for each row.
COMPUTED = {
    "loss_weights": [("criterion.loss_weights", [0.5, 0.25], "criterion.loss_weights", [0.5, 0.25])],
    "betas": [("optimizer.adam_betas", "(0.5, 0.75)", "optimizer.adam_betas", "(0.5, 0.75)")],
    "schedule": [("lr_scheduler.final_lr_scale", 0.5, "lr_scheduler.final_lr_scale", 0.5)],
    "splits": [("dataset.valid_subset", "valid_a,valid_b", "dataset.valid_subset", "valid_a,valid_b")],
    "metric": [
        ("checkpoint.best_checkpoint_metric", "icbhi", "checkpoint.best_checkpoint_metric", "icbhi_score"),
        ("checkpoint.best_checkpoint_metric", "loss", "checkpoint.best_checkpoint_metric", "loss"),
    ],
    "backbone": [("model.cnn_arch", "any", "model.backbone", "spectrogram_wav2vec2")],
    "networks": [("model.w2v_args.model.mask_prob", 0.5, "model.profile_extractor.mask_prob", 0.5)],
    # The fakes hold their networks' own settings, which official fine-tuning had changed already.
    "laid_over": [
        ("model.mask_prob", 0.5, "model.profile_extractor.mask_prob", 0.3),
        ("model.layerdrop", 0.5, "model.transformer.encoder_layerdrop", 0.0),
    ],
    "unused_by_networks": [("model.mask_min_space", 4, "model.transformer.mask_min_space", 1)],
    "size": [
        ("model.num_classes", 4, "model.n_classes", 4),
        ("model.decoder_embed_dim", None, "model.decoder_embed_dim", 256),
        ("model.clf_hidden_dim", 7, "model.clf_hidden_dim", 7),
    ],
    "fusion": [("model.use_attention", True, "model.fusion", "gate")],
    "grouping": [("model.npn_option", 1, "model.grouping", "whole_split")],
    "pooling": [("model.use_profile_attention", True, "model.pooling", "profile+dot")],
    "freezing": [
        ("model.freeze_finetune_updates", 30, "model.freeze_backbone_updates", 30),
        ("model.freeze_finetune_updates", 30, "model.freeze_profile_extractor_updates", 30),
    ],
    "mels": [("task.num_mels", 64, "model.n_mels", 128), ("model.num_mels", 128, "model.n_mels", 128)],
}
ROWS = [
    pytest.param(row, section.name, kind, id=f"{kind}: {row.official[:60]}")
    for section in OPTIONS
    if section.name != "files"
    for kind in STATES
    if section.kind in (None, kind)
    for row in section.rows
]


def outcome(kind: str, changes: dict) -> tuple[dict, list[str]]:
    """Our configuration for a checkpoint with some options changed, and the report's lines."""
    state = STATES[kind]
    config = copy.deepcopy(state["cfg"])
    for key, value in changes.items():
        *sections, option = key.split(".")
        section = config
        for name in sections:
            section = section.setdefault(name, {})
        section[option] = value
    official, report = OfficialCheckpoint(Path("official.pt"), kind, config, state["model"], state), Report()
    ours, _ = convert_configuration(official, report)
    ours = OmegaConf.to_container(ours, resolve=True, enum_to_str=True)
    report.account(config, kind, {})
    return ours, report.lines()


@pytest.fixture(scope="module")
def unchanged() -> dict:
    """Our configurations, by kind, without a change."""
    return {kind: outcome(kind, {})[0] for kind in STATES}


def other(ours: str, config: dict) -> object:
    """A value of the option's kind that it does not have."""
    value = OmegaConf.select(OmegaConf.create(config), ours)
    if ours in OTHERS:
        return OTHERS[ours]
    if isinstance(value, bool):
        return not value
    return 7 if value is None else value + (0.25 if isinstance(value, float) else 1)


@pytest.mark.parametrize(("row", "section", "kind"), ROWS)
def test_a_row_is_what_converting_does(unchanged, row, section, kind):
    assert callable(getattr(CONVERTERS[section], row.does))
    if row.does == "kept":
        check_kept(row, kind, unchanged[kind])
    elif row.does in ("left_out", "inert"):
        check_left_out(row, kind, unchanged[kind])
    elif row.does == "built_in":
        fixed = dict(zip(row.keys, row.each, strict=True))
        lines = [line for line in outcome(kind, fixed)[1] if line.startswith("  built into ours with this value: ")]
        assert [value for key, value in fixed.items() if f"{key}={value}" not in lines[0]] == []
        differing = "\n".join(outcome(kind, dict.fromkeys(fixed, 77))[1])
        assert [value for value in fixed.values() if f"  differs: ours always has {value!r}: " not in differing] == []
    elif row.does == "refused":
        for key in row.keys:
            with pytest.raises(InputError, match=f"{key} is set, {row.reason}"):
                outcome(kind, {key: True})
    elif row.does != "named":
        for key, value, ours, expected in COMPUTED[row.does]:
            if OPTIONS.find(key, kind) is row:
                config, report = outcome(kind, {key: value})
                assert dict(leaves(config))[ours] == expected
                assert any(key in line for line in report)


def check_kept(row, kind: str, before: dict) -> None:
    """Every option of the row is copied to ours; what parameters decide has to agree with them."""
    targets = {key: row.targets(key) for key in row.keys}
    for key in [key for key, names in targets.items() if names[0] in DECIDED[kind]]:
        del targets[key]
        value = {"model.conv_feature_layers": "[(64, 5, 1, 1), (64, 3, 2, 2)]", "task.profiling": False}.get(key, 77)
        with pytest.raises(InputError, match="configuration and parameters disagree"):
            outcome(kind, {key: value})
    changes = {key: other(ours[0], before) for key, ours in targets.items()}
    config, report = outcome(kind, changes)
    for key, names in targets.items():
        for ours in names:
            assert dict(leaves(config))[ours] == changes[key], key
            assert any(line.startswith(f"  {key} -> ") and ours in line for line in report), key


def check_left_out(row, kind: str, before: dict) -> None:
    """Nothing of ours changes, and the report gives the row's reason with the option, or with how many there are."""
    fitting = {key.replace("*", "anything"): key for key in row.keys if key != "_name"}
    config, report = outcome(kind, dict.fromkeys(fitting, "anything"))
    assert config == before
    (line,) = [line for line in report if line.startswith(f"  {row.reason}: ")]
    for key, pattern in fitting.items():
        counted = pattern if "*" in pattern else f"{key.partition('.')[0]}.*"
        assert (f"{counted} (" if row.counted else f"{key}=anything") in line


def test_every_way_to_convert_a_row_is_tried_here():
    """And so is every row that computes ours."""
    rows = [(row, kind) for row, _, kind in (case.values for case in ROWS)]
    general = {"kept", "left_out", "inert", "built_in", "refused", "named"}
    assert {row.does for row, _ in rows} == general | {*COMPUTED}
    found = [OPTIONS.find(key, kind) for cases in COMPUTED.values() for key, *_ in cases for kind in STATES]
    assert [row.official for row, _ in rows if row.does not in general and row not in found] == []


def test_an_option_that_the_table_lacks_cannot_be_converted():
    options = TableRun(Path("official.pt"), EXTRACTOR, {"model": {"new": 1}}, OmegaConf.create(), Report())
    with pytest.raises(KeyError, match="no row in the option table"):
        options.value("model.new")
