"""tests/endurance/option_matrix.py, reduced: every value of every option beside every backbone."""

from itertools import cycle

import option_matrix
import pytest
from option_matrix import FUSIONS, LOSSES, NO_PROFILES, PROFILES, Cell, Matrix, Outcome, all_cells


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    return Matrix(tmp_path_factory.mktemp("matrix"))


def test_the_matrix_is_that_of_the_issue():
    cells = set(all_cells())
    assert len(cells) == 3 * (1 + 8 * 2) * 3 * 3
    assert {cell.pooling for cell in cells if cell.profiling} == {
        "mean",
        "profile",
        "cosine",
        "dot",
        "profile+cosine",
        "profile+dot",
        "cosine+dot",
        "profile+cosine+dot",
    }


@pytest.mark.slow
@pytest.mark.parametrize("backbone", option_matrix.BACKBONES)
def test_every_value_is_finite_and_repeats(matrix, backbone):
    columns = cycle([(fusion, loss) for loss in LOSSES for fusion in FUSIONS])
    for pooling, grouping in PROFILES:
        if (pooling, grouping) != NO_PROFILES:
            cell = Cell(backbone, pooling, grouping, *next(columns))
            outcome = matrix.run(cell)
            assert not outcome.refusal, cell
            assert outcome.sound, (cell, outcome)
            assert len(outcome.losses) == 4
            assert len(set(outcome.losses)) == 4


@pytest.mark.parametrize("loss", LOSSES)
def test_without_profiles_only_a_fusion_is_refused(matrix, loss):
    assert matrix.run(Cell("spectrogram_wav2vec2", *NO_PROFILES, "concat", loss)).sound
    for fusion in ("gate", "tensor"):
        outcome = matrix.run(Cell("spectrogram_wav2vec2", *NO_PROFILES, fusion, loss))
        assert str(outcome) == "refused"
        assert outcome.refusal.startswith(f"model.fusion={fusion}: without profiles there is nothing to fuse")


def test_what_is_not_finite_or_does_not_repeat_has_failed():
    assert str(Outcome([1.0, 2.0])) == "2.000"
    assert str(Outcome([1.0, float("nan")], repeats=False)) == "FAILED: not finite"
    assert str(Outcome([1.0, 2.0], repeats=False)) == "FAILED: differs"
    assert str(Outcome(refusal="no")) == "refused"


def test_every_cell_of_a_table_is_printed(monkeypatch, capsys):
    monkeypatch.setattr(Matrix, "run", lambda self, cell: Outcome([1.25]))
    assert option_matrix.main(["--backbone", "resnet18"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("1.250") == 17 * 9
    assert "153 cells: 153 finite and repeatable, 0 refused, 0 failed" in printed
    monkeypatch.setattr(Matrix, "run", lambda self, cell: Outcome([float("inf")]))
    assert option_matrix.main(["--backbone", "resnet18"]) == 1
    assert "153 failed" in capsys.readouterr().out
