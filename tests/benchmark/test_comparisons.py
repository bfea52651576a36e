"""From predictions in cells to the paired test and a table's lines: tiny tables whose answer is counted by hand."""

import shutil

import numpy as np
import pytest

from fairseq_neupronet.benchmark.by_profile import NAME, ProfileCounts, write_by_profile
from fairseq_neupronet.benchmark.comparison import Summary, comparison_fields, figure, summaries
from fairseq_neupronet.benchmark.results import COLUMNS, read_table
from fairseq_neupronet.benchmark.statistics import Comparison, compare_counts, random_sign_flip_p
from fairseq_neupronet.evaluation.metrics import macro_f1

METRICS = pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])


def write(out, variants, dataset="d", value="0.5"):
    """A results.csv; ``variants``: variant → fold → (path, profile, target, prediction) of each clip."""
    lines = [] if (out / "results.csv").exists() else [",".join(COLUMNS)]
    for variant, folds in variants.items():
        for fold, clips in folds.items():
            folder = out / "cells" / dataset / variant / f"fold-{fold}" / "seed-1" / "evaluation" / "test" / "full"
            folder.mkdir(parents=True)
            rows = ["path\tprofile\ttarget\tprediction", *("\t".join(clip) for clip in clips)]
            (folder / "predictions.tsv").write_text("\n".join(rows) + "\n")
            lines.append(f"{dataset},{variant},{fold},1,test,full,accuracy,{value},abc,0,1")
    with open(out / "results.csv", "a") as file:
        file.write("\n".join(lines) + "\n")
    return out / "results.csv"


def compared(results, *options) -> list[Summary]:
    """The summaries of a table's rows."""
    return summaries(read_table(results), ProfileCounts(results), *options)


@METRICS
def test_a_profile_of_two_folds_is_one_cluster_and_a_clip_without_one_is_its_own(tmp_path, metric):
    wrong = [(f"{number}.npy", profile, "a", "b") for number, profile in enumerate(["p", "q", "", ""])]
    right = [(path, profile, "a", "a") for path, profile, *_ in wrong]
    results = write(tmp_path, {"base": {1: wrong, 2: wrong}, "ours": {1: right, 2: right}})
    (_, found) = compared(results, "base", metric)
    assert (found.comparison.clips, found.comparison.profiles) == (8, 2 + 4)
    if metric == "accuracy":
        assert found.comparison.p == 2 / 2**6
    write_by_profile(tmp_path / NAME, read_table(results), ProfileCounts(results))
    shutil.rmtree(tmp_path / "cells")
    (_, again) = compared(results, "base", metric)
    assert again.comparison == found.comparison


@METRICS
def test_clips_that_one_of_them_lacks_do_not_shift_the_pairs(tmp_path, metric):
    ours = [(f"{number}.npy", f"p{number}", "ab"[number % 2], "ab"[number % 2]) for number in range(5)]
    theirs = [(*clip[:3], "c" if number == 1 else clip[2]) for number, clip in enumerate(ours)]
    results = write(tmp_path, {"base": {1: theirs[1:]}, "ours": {1: ours[:4]}})
    (_, found) = compared(results, "base", metric)
    assert found.comparison.clips == 3
    if metric == "accuracy":
        assert found.comparison.difference == pytest.approx(1 / 3)


def test_rows_without_a_value_are_left_out_and_each_data_set_has_a_reference_of_its_own(tmp_path):
    """In d the base is wrong, in e right as ours is."""
    wrong, right = [("1.npy", "p", "a", "b")], [("1.npy", "p", "a", "a")]
    write(tmp_path, {"base": {1: wrong}})
    write(tmp_path, {"base": {2: wrong}}, value="")
    write(tmp_path, {"base": {1: right}}, dataset="e", value="None")
    results = write(tmp_path, {"ours": {1: right}}, dataset="e", value="0.75")
    found = {one.row.key[:2]: one for one in compared(results, "base")}
    assert found["d", "base"].row.figures["accuracy"][0] == 0.5
    assert "accuracy" not in found["e", "base"].row.figures
    assert found["e", "ours"].comparison.difference == 0.0
    assert [one.comparison is None for one in compared(results, "base")] == [True, True, False]


def test_counts_of_other_numbers_of_clips_are_not_compared(tmp_path):
    clips = [(f"{number}.npy", "p", "a", "ab"[number % 2]) for number in range(5)]
    results = write(tmp_path, {"base": {1: clips}, "ours": {1: clips[:4]}})
    base, ours = read_table(results)
    counts = ProfileCounts(results)
    assert counts.differences(ours, base) is None
    assert counts.confusions(ours, base) is None
    assert counts.differences(ours, ours)[1].tolist() == [4]


def test_a_training_that_a_resample_leaves_without_clips_is_left_out_of_its_mean():
    """Two folds of a profile each: a resample of one profile twice has no clip of the other's training."""
    right, half = [[4, 0], [0, 4]], [[2, 2], [2, 2]]
    ours, theirs = np.zeros((2, 2, 2, 2)), np.zeros((2, 2, 2, 2))
    ours[0, 0], theirs[0, 0] = right, half
    ours[1, 1], theirs[1, 1] = right, right
    found = compare_counts(ours, theirs, macro_f1, 16, resamples=200)
    assert (found.difference, found.low, found.high) == pytest.approx((0.25, 0.0, 0.5))


def test_random_flips_never_give_a_p_of_zero():
    assert random_sign_flip_p(np.ones(40), draws=99) == 1 / 100
    right, wrong = np.zeros((40, 1, 2, 2)), np.zeros((40, 1, 2, 2))
    right[:, 0, 0, 0] = right[:, 0, 1, 1] = wrong[:, 0, 0, 1] = wrong[:, 0, 1, 0] = 1
    assert compare_counts(right, wrong, macro_f1, 80, resamples=99).p == 1 / 100


def test_what_a_table_prints():
    assert [figure(value) for value in ((0.8532, 0.0121), (1.0, float("nan")), None)] == [".853 ± .012", "1.000", "–"]
    exact = Comparison(0.05, -0.01, 0.11, 0.034, True, 9, 7)
    assert comparison_fields(exact) == ["+0.050", "-0.010 … +0.110", ".034*", "7"]
    random = Comparison(-0.05, -0.09, -0.01, 0.0004, False, 9, 70)
    assert comparison_fields(random) == ["-0.050", "-0.090 … -0.010", "< .001", "70"]
