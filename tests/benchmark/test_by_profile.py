"""by_profile.csv.gz: the paired tests without the predictions."""

import csv
import gzip
import shutil

import pytest
import written_cells

from fairseq_neupronet.benchmark.by_profile import NAME, ProfileCounts, write_by_profile
from fairseq_neupronet.benchmark.comparison import summaries
from fairseq_neupronet.benchmark.results import read_table
from fairseq_neupronet.errors import InputError

VARIANTS = {"base": 0.0, "base+majority_vote": 0.05, "dot": 0.15}


@pytest.fixture
def results(tmp_path):
    return written_cells.write_cells(tmp_path, VARIANTS, n_profiles=7, clips=9, embeddings=False)


def comparisons(results, metric="accuracy"):
    found = summaries(read_table(results), ProfileCounts(results), "base", metric)
    return {summary.row.key: summary.comparison for summary in found}


@pytest.fixture
def counted(results):
    """The file of counts, its cells still beside it."""
    write_by_profile(results.with_name(NAME), read_table(results), ProfileCounts(results))
    return results.with_name(NAME)


def read(path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def write(path, lines) -> None:
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


def test_the_counts_are_those_of_a_loop_over_the_predictions(results, counted):
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
                        place = variant, fold, seed, protocol, profile, target, prediction
                        clips, correct = expected.get(place, (0, 0))
                        expected[place] = clips + 1, correct + (target == prediction)
    rows = list(csv.DictReader(read(counted).splitlines()))
    names = "variant", "fold", "seed", "protocol", "profile", "target", "prediction"
    found = {tuple(row[name] for name in names): (int(row["clips"]), int(row["correct"])) for row in rows}
    assert found == expected
    assert len(found) == len(rows)


def test_the_same_counts_are_the_same_bytes_with_and_without_the_cells(results, counted):
    before = counted.read_bytes()
    shutil.rmtree(results.parent / "cells")
    write_by_profile(counted, read_table(results), ProfileCounts(results))
    assert counted.read_bytes() == before


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_without_predictions_the_test_is_the_same(results, counted, metric):
    before = comparisons(results, metric)
    shutil.rmtree(results.parent / "cells")
    after = comparisons(results, metric)
    assert sum(comparison is not None for comparison in after.values()) == 2 * len(written_cells.PROTOCOLS)
    assert after == before


def test_counts_of_before_that_say_right_and_wrong_alone_give_the_test_of_accuracy_alone(results, counted):
    """As published of earlier runs: a line a profile, target and prediction empty."""
    before, sums = comparisons(results), {}
    for line in read(counted).splitlines()[1:]:
        *place, _, _, clips, correct = line.split(",")
        found = sums.setdefault(",".join([*place, "", ""]), [0, 0])
        found[0] += int(clips)
        found[1] += int(correct)
    lines = [read(counted).splitlines()[0], *(f"{place},{clips},{correct}" for place, (clips, correct) in sums.items())]
    write(counted, lines)
    shutil.rmtree(results.parent / "cells")
    assert comparisons(results) == before
    assert not any(comparisons(results, "macro_f1").values())


def test_a_cell_that_was_not_counted_or_had_other_clips_leaves_its_row_untested(results, counted):
    shutil.rmtree(results.parent / "cells")
    lines = read(counted).splitlines()
    fold = [line for line in lines if line.startswith("sounds,dot,test,full,1,")]
    write(counted, [line for line in lines if line not in fold])
    assert comparisons(results)["sounds", "dot", "test", "full"] is None
    assert comparisons(results)["sounds", "dot", "test", "single"] is not None
    write(counted, [line for line in lines if line != fold[0]])
    assert comparisons(results)["sounds", "dot", "test", "full"] is None


def test_of_a_fold_in_which_one_seed_was_counted_that_seed_is_tested_and_said_to_be(results, counted):
    shutil.rmtree(results.parent / "cells")
    lines = read(counted).splitlines()
    write(counted, [line for line in lines if not line.startswith("sounds,dot,test,full,1,2,")])
    found = summaries(read_table(results), ProfileCounts(results), "base")
    by_key = {one.row.key[1:]: one for one in found}
    assert by_key["dot", "test", "full"].comparison is not None
    assert by_key["dot", "test", "full"].n_counted == 3
    assert by_key["dot", "test", "single"].n_counted == 4


def test_damage_is_said_with_the_line(results, counted):
    lines = read(counted).splitlines()
    lines[2] = lines[2].rpartition(",")[0] + ",many"
    write(counted, lines)
    with pytest.raises(InputError, match=r"by_profile\.csv\.gz:3: clips and correct have to be whole numbers"):
        comparisons(results)
    counted.write_bytes(counted.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"by_profile\.csv\.gz: is no table of results"):
        comparisons(results)
