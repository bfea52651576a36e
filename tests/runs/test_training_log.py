"""training.csv: one row an update, whatever was there before."""

import csv
import logging

import torch

from fairseq_neupronet.runs.log import LOG, read, record


def rows(folder) -> list[dict]:
    with (folder / LOG).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_columns_are_named_by_split_and_values_are_numbers_or_texts(tmp_path):
    train = {"loss": torch.tensor(0.25), "lr": 1e-3, "num_updates": 7, "many": torch.zeros(2), "none": None}
    record(tmp_path, 2, 7, {"train": train, "valid": {"auc": float("nan"), "protocol": "full", "clips": 3}})
    assert rows(tmp_path) == [
        {
            "epoch": "2",
            "updates": "7",
            "train_loss": "0.25",
            "train_lr": "0.001",
            "valid_auc": "",
            "valid_protocol": "full",
            "valid_clips": "3",
        }
    ]


def test_a_resumed_training_doubles_no_row_and_drops_what_came_after(tmp_path):
    for epoch, updates in ((1, 5), (2, 10), (3, 15)):
        record(tmp_path, epoch, updates, {"train": {"loss": epoch}})
    record(tmp_path, 2, 10, {"train": {"loss": 20}})
    assert [(row["updates"], row["train_loss"]) for row in rows(tmp_path)] == [("5", "1"), ("10", "20")]


def test_a_figure_that_comes_later_gets_a_column(tmp_path):
    record(tmp_path, 1, 5, {"train": {"loss": 1}})
    record(tmp_path, 2, 10, {"train": {"loss": 2}, "valid": {"accuracy": 0.5}})
    assert [row["valid_accuracy"] for row in rows(tmp_path)] == ["", "0.5"]


def test_a_damaged_log_is_put_aside_with_a_warning(tmp_path, caplog):
    (tmp_path / LOG).write_text("epoch,updates\n1,five\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        record(tmp_path, 2, 10, {"train": {"loss": 2}})
    assert [row["updates"] for row in rows(tmp_path)] == ["10"]
    assert (tmp_path / f"{LOG}.damaged").read_text(encoding="utf-8") == "epoch,updates\n1,five\n"
    assert f"{LOG}.damaged" in caplog.text


def test_a_training_has_a_row_for_each_of_its_epochs(run_folder):
    found = read(run_folder / "checkpoints" / LOG)
    updates = [int(row["updates"]) for row in found]
    assert updates == sorted(set(updates)) and updates[-1] == 4
    assert all(0 <= float(row["valid_accuracy"]) <= 1 and float(row["train_loss"]) > 0 for row in found)
    assert {row["valid_protocol"] for row in found} == {"full"}
