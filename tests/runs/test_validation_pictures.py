"""Pictures for TensorBoard: what they show, and that a training does without them."""

import logging

import numpy as np
import pytest
import tiny
import torch

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.evaluation.outputs import Evaluation
from fairseq_neupronet.runs import log as validation_pictures
from fairseq_neupronet.runs.log import LOG, read

CLASSES = ["cough", "laugh", "$5"]


def test_the_confusion_matrix_has_a_number_where_clips_are():
    pytest.importorskip("matplotlib")
    target, predicted = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 0])
    (axes,) = validation_pictures.confusion_figure(predicted, target, CLASSES).axes
    shown = {
        (round(text.get_position()[1]), round(text.get_position()[0])): int(text.get_text()) for text in axes.texts
    }
    counts = {}
    for pair in zip(target.tolist(), predicted.tolist(), strict=True):
        counts[pair] = counts.get(pair, 0) + 1
    assert shown == counts
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("target", "prediction")


def test_the_examples_are_the_clips_whose_own_class_is_least_likely():
    rng = np.random.default_rng(1)
    probabilities, target = rng.dirichlet(np.ones(3), 20), rng.integers(3, size=20)
    expected = sorted(range(20), key=lambda clip: probabilities[clip, target[clip]])[:8]
    assert validation_pictures.least_right(probabilities, target).tolist() == expected


def test_spectrograms_are_drawn_in_seconds_and_hertz():
    pytest.importorskip("matplotlib")
    recipe = FeatureRecipe.from_dict(tiny.RECIPE)
    figure = validation_pictures.examples_figure([np.zeros((8, 50))] * 5, ["a"] * 5, recipe)
    assert len(figure.axes) == 5
    axes = figure.axes[0]
    assert axes.get_xlim() == (0, 50 * recipe.hop_length / recipe.sample_rate)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("s", "Hz")
    figure.canvas.draw()


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    evaluation = Evaluation(torch.arange(3), torch.tensor([0, 1, 2]), torch.zeros(3, 3), {})

    class Dataset:
        subset = "valid"

    with caplog.at_level(logging.WARNING):
        validation_pictures.log_validation(tmp_path / "file", Dataset(), evaluation, CLASSES, 5, None)
    assert "no pictures of this validation" in caplog.text


def test_tensorboard_gets_both_pictures(tmp_path, corpus):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task = tiny.build_task(corpus)
    task.load_dataset("valid")
    n_clips = len(task.dataset("valid"))
    target = torch.from_numpy(task.dataset("valid").targets)
    evaluation = Evaluation(torch.arange(n_clips), target, torch.zeros(n_clips, 3), {})
    validation_pictures.log_validation(tmp_path, task.dataset("valid"), evaluation, task.classes, 7, None)
    events = EventAccumulator(str(tmp_path / "valid"))
    events.Reload()
    assert sorted(events.Tags()["images"]) == ["confusion", "least_right"]
    assert [event.step for event in events.Images("confusion")] == [7]


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [["optimization.max_epoch=2", "optimization.max_update=100"], ["optimization.max_update=6"]],
    ids=["epochs", "updates"],
)
def test_a_trainings_last_validation_has_pictures(corpus, tmp_path, end):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = tiny.train(
        "finetuning",
        "vocalsound",
        f"task.data={corpus}",
        "hydra.run.dir=run",
        "dataset.validate_interval_updates=1",
        *end,
        cwd=tmp_path,
    )
    assert trained.returncode == 0, trained.stderr
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "valid"))
    events.Reload()
    validated = [int(row["updates"]) for row in read(tmp_path / "run" / "checkpoints" / LOG)]
    drawn = [event.step for event in events.Images("confusion")]
    assert drawn == [validated[-1]]
