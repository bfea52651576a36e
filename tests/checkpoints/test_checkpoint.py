"""What a checkpoint of a real training holds, and the data that it accepts to be validated on."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny
import torch

from fairseq_neupronet.errors import InputError


def validated(checkpoint, data, tmp_path, *options, **named) -> dict:
    """metrics.json of a validation, with the predictions by path."""
    tiny.fairseq_validate(checkpoint, data, "--results-path", tmp_path / "results", *options, **named)
    summary = json.loads((tmp_path / "results" / "metrics.json").read_text())
    header, *rows = [line.split("\t") for line in (tmp_path / "results" / "predictions.tsv").read_text().splitlines()]
    summary["by_class"] = {row[0]: dict(zip(header[4:], map(float, row[4:]), strict=True)) for row in rows}
    return summary


def copied(place, tmp_path) -> Path:
    shutil.copytree(place / "data", tmp_path / "data")
    return tmp_path / "data"


# ---- what is in a checkpoint ---------------------------------------------------------------------------------------


def only_plain(value, where="checkpoint"):
    if isinstance(value, dict):
        for key, inner in value.items():
            only_plain(key, where)
            only_plain(inner, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for inner in value:
            only_plain(inner, where)
    else:
        assert value is None or type(value) in (str, int, float, bool, torch.Tensor), f"{where}: {type(value)}"


def test_the_checkpoint_is_tensors_and_plain_containers_and_knows_its_data(checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    only_plain(state["task_state"])
    only_plain(state["cfg"])
    assert state["task_state"]["classes"] == list(tiny.CLASSES)
    assert state["task_state"]["recipe"] == tiny.RECIPE
    assert state["task_state"]["n_mels"] == tiny.N_MELS
    assert state["task_state"]["fixed_frames"] == tiny.FRAMES[1]
    assert sum(state["task_state"]["train_clips"]) == tiny.CLIPS["train"]
    assert (state["cfg"]["model"]["n_mels"], state["cfg"]["model"]["n_classes"]) == (tiny.N_MELS, 3)


def test_the_best_figure_of_training_is_that_of_validation(place, checkpoint, tmp_path):
    best = torch.load(checkpoint, weights_only=True)["extra_state"]["best"]
    summary = validated(checkpoint, place / "data", tmp_path, split="valid", batch=5)
    assert best == pytest.approx(summary["metrics"]["accuracy"], abs=1e-9)


def test_validation_metrics_of_all_epochs_are_not_stored(checkpoint):
    """fairseq's `default` and `valid` aggregators are never reset: concatenated outputs would pile up in them."""
    assert checkpoint.stat().st_size < 1_000_000
    meters = torch.load(checkpoint, weights_only=True)["extra_state"].get("metrics", {})
    tensors = [value for group in meters.values() for *_, value in group if isinstance(value, torch.Tensor)]
    assert sum(tensor.numel() for tensor in tensors) == 0


# ---- validation ----------------------------------------------------------------------------------------------------


def test_the_official_command_validates_without_the_pretraining_file(place, checkpoint, tmp_path):
    finished = tiny.command(
        "fairseq-validate",
        "--path",
        checkpoint,
        "--task",
        "audio_finetuning",
        "data",
        "--valid-subset",
        "test",
        "--batch-size",
        "128",
        "--user-dir",
        tiny.ROOT / "fairseq_neupronet",
        "--results-path",
        tmp_path / "out",
        cwd=place,
    )
    assert finished.returncode == 0, finished.stderr
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert summary["protocol"] == "full"
    assert summary["subset"] == "test"
    assert summary["clips"] == tiny.CLIPS["test"]
    assert summary["checkpoint"] == str(checkpoint)
    printed = re.search(r"accuracy ([\d.]+)", finished.stdout + finished.stderr)
    assert float(printed.group(1)) == pytest.approx(summary["metrics"]["accuracy"], abs=1e-5)
    assert "protocol full" in finished.stdout + finished.stderr


def test_the_protocol_is_chosen_by_option_or_by_model_overrides(place, checkpoint, tmp_path):
    data = place / "data"
    full = validated(checkpoint, data, tmp_path / "a")
    option = validated(checkpoint, data, tmp_path / "b", "--protocol", "single", task="spectrogram_finetuning")
    override = validated(checkpoint, data, tmp_path / "c", "--model-overrides", "{'protocol': 'single'}")
    assert (full["protocol"], option["protocol"], override["protocol"]) == ("full", "single", "single")
    assert option["by_class"] == override["by_class"] != full["by_class"]


def test_batch_sizes_of_1_8_and_64_give_the_same(place, checkpoint, tmp_path):
    results = [validated(checkpoint, place / "data", tmp_path / str(size), batch=size) for size in (1, 8, 64)]
    for result in results[1:]:
        assert result["metrics"]["accuracy"] == results[0]["metrics"]["accuracy"]
        for path, probabilities in result["by_class"].items():
            assert probabilities == pytest.approx(results[0]["by_class"][path], abs=1e-5)


def test_a_dictionary_in_another_order_is_mapped_by_class_name(place, checkpoint, tmp_path):
    data = copied(place, tmp_path)
    tiny.write_dictionary(data, reversed(tiny.CLASSES))
    expected = validated(checkpoint, place / "data", tmp_path / "a")
    assert validated(checkpoint, data, tmp_path / "b") == expected | {"checkpoint": str(checkpoint)}


def test_a_dictionary_with_fewer_classes_is_mapped_too(place, checkpoint, tmp_path):
    data = copied(place, tmp_path)
    keep = [number for number, label in enumerate((data / "test.label").read_text().split()) if label != "cough"]
    for name, head in (("test.tsv", 1), ("test.label", 0)):
        lines = (data / name).read_text().splitlines()
        (data / name).write_text("\n".join([*lines[:head], *(lines[number + head] for number in keep)]) + "\n")
    tiny.write_dictionary(data, ["sniff", "laugh"])
    options = ["--model-overrides", "{'protocol': 'single'}"]
    fewer = validated(checkpoint, data, tmp_path / "a", *options)["by_class"]
    every = validated(checkpoint, place / "data", tmp_path / "b", *options)["by_class"]
    assert len(fewer) == len(keep)
    assert all(fewer[path] == pytest.approx(every[path], abs=1e-5) for path in fewer)


def refused(checkpoint, data, tmp_path, *options, **named) -> str:
    with pytest.raises(InputError) as raised:
        tiny.fairseq_validate(checkpoint, data, "--results-path", tmp_path / "results", *options, **named)
    assert not (tmp_path / "results").exists()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_unknown_class_is_refused_naming_it_and_the_known_ones(place, checkpoint, tmp_path):
    data = copied(place, tmp_path)
    tiny.write_dictionary(data, ["laugh", "giggle", "cough", "sniff"])
    sentence = refused(checkpoint, data, tmp_path)
    assert str(data / "dict.label.txt") in sentence
    assert "class giggle is unknown to the model, whose classes are cough, laugh, sniff" in sentence


def test_another_recipe_is_refused_naming_both(place, checkpoint, tmp_path):
    data = copied(place, tmp_path)
    tiny.write_recipe(data, name="other", hop_length=320)
    sentence = refused(checkpoint, data, tmp_path)
    assert str(data / "test.tsv") in sentence
    assert "features of recipe other: 8 mels, 16000 Hz, n_fft 400, hop 320" in sentence
    assert "the model was trained on tiny: 8 mels, 16000 Hz, n_fft 400, hop 160" in sentence


def test_the_same_recipe_under_another_name_is_accepted(place, checkpoint, tmp_path):
    data = copied(place, tmp_path)
    tiny.write_recipe(data, name="renamed")
    assert validated(checkpoint, data, tmp_path)["clips"] == tiny.CLIPS["test"]


def test_another_mel_count_is_refused_naming_both(place, checkpoint, tmp_path):
    data = copied(place, tmp_path)
    text = (data / "test.tsv").read_text()
    (data / "test.tsv").write_text(text.replace("\t8\t", "\t16\t"))
    assert f"{data / 'test.tsv'}: 16 mel bands, the model has 8" in refused(checkpoint, data, tmp_path)


def test_a_class_in_test_that_training_lacks_is_refused(own_corpus, tmp_path):
    """Refused when training begins, for its validation split, and with the checkpoint's own counts later."""
    labels = (own_corpus / "train.label").read_text()
    (own_corpus / "train.label").write_text(labels.replace("sniff", "cough"))
    task = tiny.build_task(own_corpus)
    with pytest.raises(InputError, match=r"test\.label:3: class 'sniff' has no clip in the training split \(7 clips"):
        task.load_dataset("test")
    later = tiny.build_task(own_corpus)
    later.load_state_dict(task.state_dict())
    (own_corpus / "train.label").write_text(labels)
    with pytest.raises(InputError, match=r"test\.label:3: class 'sniff' has no clip in the training split"):
        later.load_dataset("test")


def test_profiling_of_a_model_trained_with_profiles_needs_profiles_in_the_test_manifest(place, checkpoint, tmp_path):
    data = copied(place, tmp_path)
    lines = (data / "test.tsv").read_text().splitlines()
    (data / "test.tsv").write_text("\n".join([lines[0], *(line.rsplit("\t", 1)[0] for line in lines[1:])]) + "\n")
    assert "no profile column" in refused(checkpoint, data, tmp_path)


def test_a_missing_split_is_named(place, checkpoint, tmp_path):
    assert "eval.tsv: no such manifest" in refused(checkpoint, place / "data", tmp_path, split="eval")


def test_data_without_its_training_split_can_be_validated(place, checkpoint, tmp_path):
    data = copied(place, tmp_path)
    for name in ("train.tsv", "train.label", "valid.tsv", "valid.label"):
        (data / name).unlink()
    assert validated(checkpoint, data, tmp_path)["clips"] == tiny.CLIPS["test"]


def test_two_subsets_in_one_command_are_written_apart(place, checkpoint, tmp_path):
    validated(checkpoint, place / "data", tmp_path, split="valid,test")
    names = ("metrics.json", "test/metrics.json")
    summaries = [json.loads((tmp_path / "results" / name).read_text()) for name in names]
    assert [(summary["subset"], summary["clips"]) for summary in summaries] == [
        ("valid", tiny.CLIPS["valid"]),
        ("test", tiny.CLIPS["test"]),
    ]
