"""by_profile.csv: the paired test of accuracy without the predictions."""

import csv
import shutil

import pytest
import written_cells

from fairseq_neupronet.benchmark.by_profile import write_by_profile
from fairseq_neupronet.benchmark.comparison import summaries
from fairseq_neupronet.benchmark.results import read_rows
from fairseq_neupronet.errors import InputError

VARIANTS = {"base": 0.0, "base+majority_vote": 0.05, "dot": 0.15}


@pytest.fixture
def results(tmp_path):
    return written_cells.write_cells(tmp_path, VARIANTS, n_profiles=7, clips=9, embeddings=False)


def comparisons(results):
    return {summary.key: summary.comparison for summary in summaries(results, "base")}


def test_the_counts_are_those_of_a_loop_over_the_predictions(results):
    write_by_profile(results, read_rows(results))
    expected = {}
    for variant in VARIANTS:
        model, _, control = variant.partition("+")
        for fold in ("1", "2"):
            for seed in ("1", "2"):
                for protocol in written_cells.PROTOCOLS:
                    cell = results.parent / "cells" / "sounds" / model / f"fold-{fold}" / f"seed-{seed}"
                    name = f"{protocol}+{control}" if control else protocol
                    path = cell / "evaluation" / "test" / name / "predictions.tsv"
                    for line in path.read_text().splitlines()[1:]:
                        _, profile, target, prediction, *_ = line.split("\t")
                        clips, correct = expected.get((variant, fold, seed, protocol, profile), (0, 0))
                        found = clips + 1, correct + (target == prediction)
                        expected[variant, fold, seed, protocol, profile] = found
    with open(results.with_name("by_profile.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        (row["variant"], row["fold"], row["seed"], row["protocol"], row["profile"]): (
            int(row["clips"]),
            int(row["correct"]),
        )
        for row in rows
    }
    assert found == expected
    assert len(found) == len(rows)


def test_without_predictions_the_test_is_the_same(results):
    write_by_profile(results, read_rows(results))
    before = comparisons(results)
    shutil.rmtree(results.parent / "cells")
    after = comparisons(results)
    assert sum(comparison is not None for comparison in after.values()) == 2 * len(written_cells.PROTOCOLS)
    for key, comparison in before.items():
        if comparison is None:
            assert after[key] is None
            continue
        for name in ("difference", "low", "high", "p"):
            assert getattr(after[key], name) == pytest.approx(getattr(comparison, name))
        assert (after[key].clips, after[key].profiles) == (comparison.clips, comparison.profiles)


def test_a_cell_that_was_not_counted_or_had_other_clips_leaves_its_row_untested(results):
    write_by_profile(results, read_rows(results))
    shutil.rmtree(results.parent / "cells")
    path = results.with_name("by_profile.csv")
    lines = path.read_text().splitlines()
    cell = [line for line in lines if line.startswith("sounds,dot,test,full,1,2,")]
    path.write_text("\n".join(line for line in lines if line not in cell) + "\n")
    assert comparisons(results)["sounds", "dot", "test", "full"] is None
    assert comparisons(results)["sounds", "dot", "test", "single"] is not None
    path.write_text("\n".join(line for line in lines if line != cell[0]) + "\n")
    assert comparisons(results)["sounds", "dot", "test", "full"] is None


def test_damage_is_said_with_the_line(results):
    write_by_profile(results, read_rows(results))
    path = results.with_name("by_profile.csv")
    lines = path.read_text().splitlines()
    lines[2] = lines[2].rpartition(",")[0] + ",many"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"by_profile\.csv:3: clips and correct have to be whole numbers"):
        summaries(results, "base")
