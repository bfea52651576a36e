"""A user's mistake gives one sentence, no traceback, and leaves nothing behind."""

import sys

import numpy as np
import pytest
import tiny
import torch
from fairseq.dataclass.initialize import hydra_init
from hydra import compose, initialize_config_dir
from omegaconf.errors import OmegaConfBaseException

from fairseq_neupronet.errors import InputError, show_sentences
from fairseq_neupronet.runs.run import check_inputs

FINETUNING, PRETRAINING = ("finetuning", "vocalsound"), ("pretraining", "vocalsound")


def check(data, *overrides, recipe=FINETUNING):
    """What the real command does before it makes its output folder."""
    stage, name = recipe
    hydra_init(name)
    tiny_ones = tiny.TINY_PRETRAINING if stage == "pretraining" else tiny.TINY_FINETUNING
    given = [] if data is None else [f"task.data='{data}'"]
    with initialize_config_dir(str(tiny.ROOT / "configs" / stage), version_base="1.1"):
        config = compose(name, [*tiny_ones, *given, f"common.user_dir={tiny.ROOT / 'fairseq_neupronet'}", *overrides])
    check_inputs(config)


def printed(kind, error, capsys) -> str:
    """What the process would print of an uncaught exception."""
    hook = sys.excepthook
    try:
        show_sentences()
        sys.excepthook(kind, error, None)
    finally:
        sys.excepthook = hook
    return capsys.readouterr().err


def sentence(capsys, data, *overrides, recipe=FINETUNING) -> str:
    with pytest.raises((InputError, OmegaConfBaseException)) as raised:
        check(data, *overrides, recipe=recipe)
    text = printed(raised.type, raised.value, capsys)
    assert text.startswith("neupronet: error: ")
    assert text.count("\n") == 1
    return text


def test_groups_of_a_codebook_divide_its_width(corpus, capsys):
    given = ["model.quantize_targets=true", "model.latent_groups=3"]
    text = sentence(capsys, corpus, *given, recipe=PRETRAINING)
    assert "latent_groups=3 does not divide final_dim=8" in text


def test_a_batch_of_profiles_holds_clips(corpus, capsys):
    text = sentence(capsys, corpus, "task.profile_batches=true", "task.clips_per_profile=0")
    assert "task.clips_per_profile=0: give clips from 1 up" in text


@pytest.mark.parametrize("recipe", [FINETUNING, PRETRAINING])
def test_good_settings_pass(corpus, recipe):
    check(corpus, "task.profiling=True", recipe=recipe)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.backbone=vgg", "model.backbone='vgg' is not known; known are efficientnet-b0"),
        ("model.pooling=max", "max"),
        ("task.frequency_warp=0", "task.frequency_warp=0.0: give a number above 0"),
        ("model.fusion=sum", "sum"),
        ("model.head=deep", "deep"),
        ("task.protocol=all", "all"),
        ("task.padding=none", "none"),
        ("task.profiling=perhaps", "perhaps"),
        ("criterion.class_weights=[1,2]", "class_weights holds 2 numbers and the data has 3 classes"),
        ("criterion.loss_weights=[1]", "criterion.loss_weights has 1 number(s), two are wanted"),
        ("model.n_mels=128", "model.n_mels=128, but"),
        ("model.n_classes=10", "model.n_classes=10, but"),
        ("model.transformer.encoder_embed_dim=32", "ends at 16 channels and encoder_embed_dim is 32"),
        ("model.transformer.extractor_mode=group", "group"),
        ("task.min_sample_size=500", "no clip has the 500 frames of task.min_sample_size"),
        ("optimization.max_update=3", "optimization.max_update=3: the tri-stage schedule of fairseq divides by zero"),
        ("model.backbone_path=absent.pt", "model.backbone_path=absent.pt: no such file"),
        ("dataset.valid_subset=eval", "eval.tsv: no such manifest"),
        ("task.max_sample_size=0", "task.max_sample_size=0: give frames from 1 up, or leave it unset"),
        ("task.max_sample_size=-5", "task.max_sample_size=-5: give frames from 1 up"),
        ("model.transformer.encoder_attention_heads=3", "attention_heads=3 does not divide encoder_embed_dim=16"),
        ("model.transformer.conv_pos_groups=3", "conv_pos_groups=3 does not divide encoder_embed_dim=16"),
        ("model.transformer.dropout=-0.1", "dropout=-0.1: give a number from 0 to 1"),
        ("model.final_dropout=1.5", "model.final_dropout=1.5: give a number from 0 to 1"),
        ("common.memory_efficient_bf16=true", "common.memory_efficient_bf16=true: fused_adam keeps its weights"),
        (
            "+task.mixup_partners=same_profile",
            "mixup_partners=same_profile, which this version no longer has; leave it",
        ),
        ("+task.profiles_per_batch=8", "which this version no longer has; leave it out: profile batches hold as many"),
        (
            "+task.two_views=true",
            "task.two_views=True, which this version no longer has; train two models and evaluate them together",
        ),
    ],
)
def test_one_sentence_names_the_option(corpus, capsys, override, said):
    text = sentence(capsys, corpus, override)
    assert said in text
    option, value = override.split("=", 1)
    assert option.split(".")[-1] in text or value in text


@pytest.mark.parametrize("network", ["backbone", "profile_extractor"])
@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_freezing_for_some_updates_is_refused_in_half_precision(corpus, capsys, kind, network):
    text = sentence(capsys, corpus, f"common.{kind}=true", f"model.freeze_{network}_updates=3")
    assert f"model.freeze_{network}_updates=3: common.{kind}=true would move what is frozen" in text
    assert f"model.freeze_{network}=true" in text and "task.bfloat16=true" in text


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["freeze_backbone=true", "freeze_backbone_updates=3"], "model.freeze_backbone=true freezes for the whole"),
        (["freeze_profile_extractor=true"], "model.freeze_profile_extractor=true: without profiles there is no"),
        (["freeze_backbone=true", "backbone=none"], "model.freeze_backbone=true: model.backbone=none has no weights"),
    ],
)
def test_freezing_what_is_not_there_or_twice_is_refused(corpus, capsys, overrides, said):
    profiling = "true" if "backbone=none" in overrides else "false"
    given = [f"model.{override}" for override in overrides]
    assert said in sentence(capsys, corpus, f"task.profiling={profiling}", *given)


@pytest.mark.parametrize("spec", ["[(16,3,1)", '__import__("os")', "[]", "[(16,3)]"])
def test_a_convolution_spec_that_cannot_be_read(corpus, capsys, spec):
    assert "conv_feature_layers" in sentence(capsys, corpus, f"model.transformer.conv_feature_layers='{spec}'").lower()


def test_max_update_of_four_is_enough_for_the_tri_stage_schedule(corpus):
    check(corpus, "optimization.max_update=4")


def test_missing_data_is_asked_for(capsys):
    assert "task.data is not set; give the folder that `neupronet prepare` wrote" in sentence(capsys, None)


def test_data_that_is_no_folder(tmp_path, capsys):
    absent, file = tmp_path / "absent", tmp_path / "file"
    file.write_text("")
    for path in (absent, file):
        assert f"task.data={path}: no such folder" in sentence(capsys, path)


def test_frequencies_that_are_unknown_are_not_stretched(own_corpus, capsys):
    (own_corpus / "features" / "recipe.yaml").unlink(missing_ok=True)
    text = sentence(capsys, own_corpus, "task.frequency_warp=.1")
    assert f"{own_corpus / 'features'} has no recipe.yaml" in text and "task.frequency_warp=0.1" in text


def test_profile_batches_without_profiles(own_corpus, capsys):
    for split in ("train", "valid"):
        lines = (own_corpus / f"{split}.tsv").read_text().splitlines()
        rows = [line.rsplit("\t", 1)[0] for line in lines[1:]]
        (own_corpus / f"{split}.tsv").write_text("\n".join([lines[0], *rows]) + "\n")
    assert "task.profile_batches needs the profile column" in sentence(capsys, own_corpus, "task.profile_batches=True")
    assert "train.tsv:2: no profile column" in sentence(capsys, own_corpus, "task.profiling=True")
    check(own_corpus)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train.tsv", "train.tsv: no such manifest"),
        ("valid.tsv", "valid.tsv: no such manifest"),
        ("train.label", "train.label: no such label file"),
        ("valid.label", "valid.label: no such label file"),
        ("dict.label.txt", "dict.label.txt: no such class dictionary"),
        ("features/train3.npy", "train.tsv:5: feature file"),
    ],
)
def test_a_missing_file_is_found_before_training(own_corpus, capsys, name, said):
    (own_corpus / name).unlink()
    assert said in sentence(capsys, own_corpus)


def test_a_class_in_validation_that_training_lacks(own_corpus, capsys):
    labels = (own_corpus / "train.label").read_text()
    (own_corpus / "train.label").write_text(labels.replace("sniff", "cough"))
    assert "valid.label:3: class 'sniff' has no clip in the training split" in sentence(capsys, own_corpus)


def test_a_validation_split_of_another_mel_count(own_corpus, capsys):
    text = (own_corpus / "valid.tsv").read_text()
    (own_corpus / "valid.tsv").write_text(text.replace("\t8\t", "\t16\t"))
    assert "valid.tsv: 16 mel bands, the model has 8" in sentence(capsys, own_corpus)


@pytest.mark.parametrize("field", ["backbone_path", "profile_extractor_path"])
def test_checkpoints_that_do_not_serve(corpus, tmp_path, capsys, field):
    text_file, other = tmp_path / "notes.txt", tmp_path / "other.pt"
    text_file.write_text("some notes")
    torch.save({"cfg": {"model": {"_name": "wav2vec2"}}, "model": {}}, other)
    given = ["task.profiling=True", f"model.{field}="]
    assert "not a checkpoint of tensors" in sentence(capsys, corpus, given[0], given[1] + str(text_file))
    assert "a checkpoint of wav2vec2" in sentence(capsys, corpus, given[0], given[1] + str(other))


def test_defects_keep_their_traceback(capsys):
    assert "ValueError: a defect" in printed(ValueError, ValueError("a defect"), capsys)


# ---- through the real commands -------------------------------------------------------------------------------------


def nothing_written(folder, *expected):
    return sorted(path.name for path in folder.iterdir()) == sorted(expected)


def test_training_on_a_missing_folder(tmp_path):
    failed = tiny.train("finetuning", "vocalsound", "task.data=absent", cwd=tmp_path)
    assert "task.data=absent: no such folder" in tiny.one_sentence(failed)
    assert nothing_written(tmp_path)


def test_training_on_a_damaged_value(own_corpus, tmp_path):
    """Found when the clip is read, in a worker, after training has begun."""
    clip = np.load(own_corpus / "features" / "train7.npy")
    clip[2, 2] = np.nan
    np.save(own_corpus / "features" / "train7.npy", clip)
    failed = tiny.train("finetuning", "vocalsound", "task.data=data", "dataset.num_workers=1", cwd=tmp_path)
    assert "train.tsv:9: feature file" in tiny.one_sentence(failed)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_misspelt_option(corpus, tmp_path):
    """Refused by Hydra itself, before the plugin is loaded."""
    failed = tiny.train("finetuning", "vocalsound", f"task.data={corpus}", "task.profilng=True", cwd=tmp_path)
    assert failed.returncode != 0
    assert "Traceback" not in failed.stdout + failed.stderr
    assert "Could not override 'task.profilng'" in failed.stderr
    assert nothing_written(tmp_path)


def test_a_pooling_that_is_not_known(corpus, tmp_path):
    failed = tiny.train("finetuning", "vocalsound", f"task.data={corpus}", "model.pooling=max", cwd=tmp_path)
    text = tiny.one_sentence(failed)
    assert "pooling" in text
    assert "max" in text
    assert nothing_written(tmp_path)


@pytest.mark.parametrize(
    ("checkpoint", "said"), [("absent.pt", "absent.pt"), ("notes.txt", "notes.txt: not a checkpoint of torch")]
)
def test_validating_what_is_no_checkpoint(corpus, tmp_path, checkpoint, said):
    (tmp_path / "notes.txt").write_text("some notes")
    failed = tiny.command(
        "fairseq-validate",
        "--path",
        checkpoint,
        "--user-dir",
        tiny.ROOT / "fairseq_neupronet",
        "--task",
        "audio_finetuning",
        corpus,
        "--batch-size",
        "8",
        "--results-path",
        "results",
        cwd=tmp_path,
    )
    assert said in tiny.one_sentence(failed)
    assert nothing_written(tmp_path, "notes.txt")
