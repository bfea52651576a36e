"""Folds that no profile is on both sides of."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "speaker_folds.py"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "manifest.csv"
    lines = ["path,label,profile,split,seconds"]
    for speaker in range(11):
        split = "test" if speaker < 3 else "val" if speaker < 5 else "train"
        lines += [f"audio/{speaker}_{take}.wav,word{take},s{speaker},{split},1.0" for take in range(3)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def cut(table, *options) -> list[list[dict]]:
    out = table.parent / "folds"
    subprocess.run([sys.executable, SCRIPT, table, "--out", out, *options], check=True)
    folds = []
    for path in sorted(out.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            folds.append(list(csv.DictReader(file)))
    return folds


def speakers(fold, split):
    return {row["profile"] for row in fold if row["split"] == split}


def test_every_speaker_is_tested_once_and_never_trained_on_in_that_fold(table):
    folds = cut(table, "--folds", "4")
    tested = Counter(name for fold in folds for name in speakers(fold, "test"))
    assert tested == Counter({f"s{number}": 1 for number in range(11)})
    for place, fold in enumerate(folds):
        assert len(fold) == 33
        assert not speakers(fold, "train") & (speakers(fold, "test") | speakers(fold, "valid"))
        assert speakers(fold, "valid") == speakers(folds[(place + 1) % 4], "test")
        assert all(Path(row["path"]).is_absolute() and Path(row["path"]).parent.parent == table.parent for row in fold)


def test_development_folds_hold_no_test_speaker(table):
    folds = cut(table, "--folds", "2", "--cut", "development")
    held = [speakers(fold, "valid") for fold in folds]
    assert held[0] | held[1] == {f"s{number}" for number in range(3, 11)} and not held[0] & held[1]
    for fold in folds:
        assert {row["split"] for row in fold} == {"train", "valid"}
        assert {row["profile"] for row in fold} == held[0] | held[1]


def test_the_authors_split_is_kept_and_spelled_as_prepare_wants_it(table):
    (authors,) = cut(table, "--cut", "authors")
    assert speakers(authors, "test") == {"s0", "s1", "s2"} and speakers(authors, "valid") == {"s3", "s4"}
    assert [row["label"] for row in authors] == [f"word{take}" for take in range(3)] * 11


@pytest.mark.parametrize("options", [("--folds", "4"), ("--cut", "authors"), ("--cut", "development", "--folds", "2")])
def test_of_few_training_speakers_the_fewer_are_among_the_more_and_the_rest_stays(table, options):
    whole, three, two = (
        cut(table, *options, *few) for few in ((), ("--train-profiles", "3"), ("--train-profiles", "2"))
    )
    for fold, more, fewer in zip(whole, three, two, strict=True):
        assert len(speakers(more, "train")) == 3 and len(speakers(fewer, "train")) == 2
        assert speakers(fewer, "train") < speakers(more, "train") < speakers(fold, "train")
        for found in (more, fewer):
            held = speakers(found, "train")
            assert found == [row for row in fold if row["split"] != "train" or row["profile"] in held]
