"""The model card: what training wrote, what is made from a checkpoint alone, and the summary beside it."""

import collections
import json
import re
import shutil
import subprocess
import sys

import pytest
import tiny
import torch

from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.runs.card import CARD, card_of, depends_on_profiles


def table_row(card: str, first: str) -> list[str]:
    (line,) = [line for line in card.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_training_leaves_a_card_with_counts_of_every_split(checkpoint, place):
    card = checkpoint.with_name(CARD).read_text(encoding="utf-8")
    labels = {split: (place / "data" / f"{split}.label").read_text().split() for split in ("train", "valid", "test")}
    for name in tiny.CLASSES:
        assert table_row(card, name) == [str(collections.Counter(found)[name]) for found in labels.values()]
    assert table_row(card, r"**clips**") == [str(len(found)) for found in labels.values()]
    profiles = [
        {line.split("\t")[3] for line in (place / "data" / f"{split}.tsv").read_text().splitlines()[1:]}
        for split in labels
    ]
    assert table_row(card, r"**profiles**") == [str(len(found)) for found in profiles]


def test_the_figures_of_each_protocol_are_those_of_the_evaluation(checkpoint, place, tmp_path, capsys):
    card = checkpoint.with_name(CARD).read_text(encoding="utf-8")
    arguments = [
        "evaluate",
        "--path",
        checkpoint,
        "--data",
        place / "data",
        "--subset",
        "valid",
        "--no-controls",
        "--protocol",
        "single,enrol-3,full",
        "--out",
        tmp_path,
        "--workers",
        0,
    ]
    assert main([str(argument) for argument in arguments]) == 0
    for protocol in ("single", "enrol-3", "full"):
        figures = json.loads((tmp_path / "valid" / protocol / "metrics.json").read_text())["metrics"]
        expected = [figures[name] for name in ("accuracy", "balanced_accuracy", "macro_f1", "auc")]
        assert [float(cell) for cell in table_row(card, protocol)] == pytest.approx(expected, abs=5e-5)


def test_info_prints_the_card_beside_its_checkpoint_only(checkpoint, tmp_path, capsys):
    assert main(["info", str(checkpoint)]) == 0
    assert capsys.readouterr().out == checkpoint.with_name(CARD).read_text(encoding="utf-8")
    state = torch.load(checkpoint, weights_only=True)
    state["optimizer_history"][-1]["num_updates"] = 777
    torch.save(state, tmp_path / checkpoint.name)
    shutil.copy(checkpoint.with_name(CARD), tmp_path / CARD)
    assert main(["info", str(tmp_path / checkpoint.name)]) == 0
    card = capsys.readouterr().out
    assert "update 777" in card and "Not measured for this card" in card
    assert table_row(card, "cough") == [str(state["task_state"]["train_clips"][0])]


def test_a_card_needs_no_data_and_imports_no_fairseq(checkpoint, tmp_path):
    shutil.copy(checkpoint, tmp_path / "model.pt")
    code = (
        "import sys; from fairseq_neupronet.cli import main; main(['info', 'model.pt']); "
        "assert 'fairseq' not in sys.modules"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=tiny.environment(), capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    assert "# Model card: model.pt" in finished.stdout


def test_a_pretrained_extractor_has_a_card_without_classes(place):
    card = card_of(place / "put_aside.pt")
    assert "pretrained profile extractor" in card and "## Figures" not in card


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None], ids=["empty", "text", "missing"])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "model.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(path))):
        card_of(path)


def test_another_models_checkpoint_is_named(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"cfg": {"model": {"_name": "transformer_lm"}}, "model": {}}, path)
    with pytest.raises(InputError, match="a checkpoint of transformer_lm"):
        card_of(path)


def test_a_training_ends_with_a_summary_whose_commands_can_be_copied(place, run_folder):
    log = (place / "log.txt").read_text(encoding="utf-8")
    lines = [line.removeprefix("neupronet: ") for line in log[log.rindex("neupronet: finished:") :].splitlines()]
    assert any(
        re.match(r"model: .*checkpoint_best\.pt\S* \(epoch \d+, update \d+, accuracy \d\.\d{4}\)", line)
        for line in lines
    )
    assert [line.split()[0] for line in lines[2:5]] == ["single", "enrol-3", "full"]
    (command,) = [line.removeprefix("next: ") for line in lines if line.startswith("next: ")]
    finished = subprocess.run(
        f"{command} --no-controls",
        shell=True,
        cwd=place,
        env=tiny.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert (run_folder / "evaluation" / "results.csv").is_file()
    shutil.rmtree(run_folder / "evaluation")


def test_a_card_counts_weights_and_names_every_augmentation(checkpoint, tmp_path):
    """Batch norm's running statistics are no weights."""
    state = torch.load(checkpoint, weights_only=True)
    state["model"]["backbone.norm.running_mean"] = torch.zeros(1000)
    state["model"]["backbone.norm.num_batches_tracked"] = torch.zeros((), dtype=torch.long)
    state["cfg"]["task"]["frequency_warp"], state["cfg"]["criterion"]["label_smoothing"] = 0.1, 0.2
    torch.save(state, tmp_path / "model.pt")
    card = card_of(tmp_path / "model.pt")
    weights = sum(weight.numel() for name, weight in torch.load(checkpoint, weights_only=True)["model"].items())
    assert table_row(card, "parameters") == [f"{weights:,}"]
    assert table_row(card, "label smoothing") == ["0.2"]
    assert "frequency_warp" in table_row(card, "augmentation and batches")[0]


@pytest.mark.parametrize(
    ("task", "grouping", "depends"),
    [
        ({}, "in_batch", False),
        ({"profiling": True}, "in_batch", True),
        ({"profiling": True}, "none", False),
        ({"profile_normalize": True}, "in_batch", True),
        ({"adaptive_batch_norm": 0.0}, "in_batch", True),
    ],
)
def test_whose_outputs_depend_on_the_profile(task, grouping, depends):
    assert depends_on_profiles({"task": task, "model": {"grouping": grouping}}) is depends
