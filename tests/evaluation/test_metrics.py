"""Every metric against scikit-learn, and the undefined cases."""

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from fairseq_neupronet.evaluation.metrics import (
    ICBHI_METRICS,
    METRICS,
    classification_metrics,
    confusion_matrix,
    metric_names,
    undefined_reasons,
)


def random_case(seed: int, n_clips: int, n_classes: int, ties: bool):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(n_classes), n_clips)
    if ties:
        probabilities = rng.multinomial(4, np.ones(n_classes) / n_classes, n_clips) / 4
    return probabilities, rng.integers(0, n_classes, n_clips)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3, 6, 10])
@pytest.mark.parametrize("n_clips", [5, 40, 300])
def test_equals_scikit_learn(n_clips, n_classes, ties):
    for seed in range(5):
        probabilities, targets = random_case(seed, n_clips, n_classes, ties)
        ours = classification_metrics(probabilities, targets)
        predictions = probabilities.argmax(1)
        macro = {"average": "macro", "zero_division": 0}
        expected = {
            "accuracy": sk.accuracy_score(targets, predictions),
            "balanced_accuracy": sk.balanced_accuracy_score(targets, predictions),
            "macro_precision": sk.precision_score(targets, predictions, **macro),
            "macro_recall": sk.recall_score(targets, predictions, **macro),
            "macro_f1": sk.f1_score(targets, predictions, **macro),
            "brier": math.nan,
        }
        one_hot = np.eye(n_classes)[targets]
        expected["auc_micro"] = sk.roc_auc_score(one_hot.ravel(), probabilities.ravel())
        expected["brier_micro"] = sk.brier_score_loss(one_hot.ravel(), probabilities.ravel())
        if n_classes == 2:
            expected["auc_ovo"] = sk.roc_auc_score(targets, probabilities[:, 1])
            expected["auc"] = sk.roc_auc_score(targets, probabilities[:, 1])
            expected["brier"] = sk.brier_score_loss(targets, probabilities[:, 1])
        elif len(np.unique(targets)) == n_classes:
            expected["auc"] = sk.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
            expected["auc_ovo"] = sk.roc_auc_score(targets, probabilities, multi_class="ovo", average="macro")
            expected["auc_micro"] = sk.roc_auc_score(targets, probabilities, multi_class="ovr", average="micro")
        else:
            present = np.unique(targets)
            expected["auc_ovo"] = auc_ovo(probabilities, targets)
            expected["auc"] = np.mean([sk.roc_auc_score(targets == k, probabilities[:, k]) for k in present])
        assert ours.keys() == expected.keys() == set(METRICS)
        for name, value in expected.items():
            assert ours[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def auc_ovo(probabilities, targets):
    """Pair by pair, which scikit-learn refuses to do where a class is absent."""
    present = np.unique(targets)
    areas = []
    for one in present:
        for other in present[present != one]:
            rows = np.isin(targets, [one, other])
            areas.append(sk.roc_auc_score(targets[rows] == one, probabilities[rows, one]))
    return np.mean(areas)


def test_confusion_equals_scikit_learn():
    probabilities, targets = random_case(0, 100, 5, False)
    predictions = probabilities.argmax(1)
    expected = sk.confusion_matrix(targets, predictions, labels=range(5))
    np.testing.assert_array_equal(confusion_matrix(predictions, targets, 5), expected)


def test_a_single_clip():
    probabilities, targets = np.array([[0.2, 0.5, 0.3]]), np.array([1])
    values = classification_metrics(probabilities, targets)
    assert values["accuracy"] == values["macro_f1"] == 1
    assert math.isnan(values["auc"]) and math.isnan(values["brier"])
    reasons = undefined_reasons(probabilities, targets)
    assert reasons == {
        "auc": "all clips are of one class",
        "auc_ovo": "all clips are of one class",
        "brier": "it is defined for two classes only, and there are 3",
    }


@pytest.mark.parametrize("n_classes", [1, 2, 5])
def test_no_clips(n_classes):
    probabilities, targets = np.zeros((0, n_classes)), np.zeros(0, dtype=np.int64)
    assert all(math.isnan(value) for value in classification_metrics(probabilities, targets).values())
    assert undefined_reasons(probabilities, targets) == dict.fromkeys(METRICS, "there are no clips")
    assert confusion_matrix(targets, targets, n_classes).sum() == 0


def test_diverged_probabilities_give_no_figure():
    probabilities, targets = random_case(0, 20, 3, False)
    probabilities[7] = np.nan
    assert all(math.isnan(value) for value in classification_metrics(probabilities, targets).values())
    assert set(undefined_reasons(probabilities, targets)) == set(METRICS)


@pytest.mark.parametrize("normal", [None, 0])
@pytest.mark.parametrize("n_clips", [0, 1, 2, 30])
@pytest.mark.parametrize("n_classes", [1, 2, 3])
def test_plain_floats_undefined_exactly_where_a_reason_is_given(n_clips, n_classes, normal):
    probabilities, targets = random_case(1, n_clips, n_classes, False)
    values = classification_metrics(probabilities.astype(np.float32), targets, normal)
    assert all(type(value) is float for value in values.values())
    undefined = {name for name, value in values.items() if math.isnan(value)}
    assert undefined == set(undefined_reasons(probabilities, targets, normal))
    json.dumps(values)


# ---- the ICBHI 2017 challenge's ------------------------------------------------------------------------------------

# Rows: targets; columns: predictions; normal, crackle, wheeze, both.
ICBHI_CONFUSION = [
    [30, 5, 3, 2],
    [6, 10, 1, 3],
    [2, 1, 5, 2],
    [1, 4, 2, 3],
]


def clips_of(confusion):
    """Probabilities and targets whose confusion matrix is this one."""
    cells = [(row, column) for row, counts in enumerate(confusion) for column, n in enumerate(counts) for _ in range(n)]
    targets, predictions = np.array(cells).T
    return np.full((len(cells), len(confusion)), 0.1) + 0.6 * np.eye(len(confusion))[predictions], targets


def test_icbhi_metrics_of_a_confusion_matrix_by_hand():
    values = classification_metrics(*clips_of(ICBHI_CONFUSION), normal=0)
    # Abnormal: 10 crackles of 20, 5 wheezes of 10, 3 of 10 with both; taking one abnormal class for another is a miss.
    assert values["sensitivity"] == pytest.approx(18 / 40)
    assert values["specificity"] == pytest.approx(30 / 40)
    assert values["icbhi_score"] == pytest.approx((18 / 40 + 30 / 40) / 2)
    assert values["accuracy"] == pytest.approx(48 / 80)
    assert set(values) == {*METRICS, *ICBHI_METRICS}


@pytest.mark.parametrize("normal", [1, 3])
def test_icbhi_metrics_follow_the_normal_class_wherever_it_stands(normal):
    order = np.roll(np.arange(4), normal)
    turned = np.array(ICBHI_CONFUSION)[np.ix_(order, order)]
    values = classification_metrics(*clips_of(turned), normal=normal)
    assert [values[name] for name in ICBHI_METRICS] == pytest.approx([0.45, 0.75, 0.6])


def test_icbhi_metrics_are_absent_without_a_normal_class():
    assert not set(ICBHI_METRICS) & set(classification_metrics(*clips_of(ICBHI_CONFUSION)))
    assert not set(ICBHI_METRICS) & set(metric_names(4))
    assert set(metric_names(4, normal=0)) == {*METRICS, *ICBHI_METRICS} - {"brier"}
    assert set(metric_names(2)) == set(METRICS)


@pytest.mark.parametrize(
    "classes, undefined, defined",
    [
        (
            [0],
            {"sensitivity": "all clips are of the normal class", "icbhi_score": "all clips are of the normal class"},
            30 / 40,
        ),
        (
            [1, 2, 3],
            {"specificity": "no clip is of the normal class", "icbhi_score": "no clip is of the normal class"},
            18 / 40,
        ),
    ],
)
def test_icbhi_metrics_of_a_split_without_normal_or_abnormal_clips(classes, undefined, defined):
    confusion = np.zeros((4, 4), dtype=int)
    confusion[classes] = np.array(ICBHI_CONFUSION)[classes]
    probabilities, targets = clips_of(confusion)
    values, reasons = classification_metrics(probabilities, targets, 0), undefined_reasons(probabilities, targets, 0)
    assert {name: reason for name, reason in reasons.items() if name in ICBHI_METRICS} == undefined
    assert {name for name in ICBHI_METRICS if math.isnan(values[name])} == set(undefined)
    assert [values[name] for name in ICBHI_METRICS if name not in undefined] == [defined]
