"""Batch norm in two processes: each has running statistics of its own batches; those of the first are stored, and all
validate with them.
"""

import signal

import pytest
import tiny
import torch
from test_processes import assert_equal_but_for_the_last_digit, last_figures
from test_resumption import UPDATES
from test_stopping import EXIT_STOPPED, LAST, NOT_EVERY_UPDATE, start_two
from training_comparison import difference, figures

pytestmark = pytest.mark.slow
OPTIONS = ["model.backbone=efficientnet-b0", *NOT_EVERY_UPDATE]


def keep_buffers(folder):
    """Each process writes down its buffers after every update."""

    def prepare():
        from fairseq import trainer

        from fairseq_neupronet.trainer.processes import process_number

        step = trainer.Trainer.train_step

        def step_and_write(self, samples, raise_oom=False):
            result = step(self, samples, raise_oom)
            buffers = dict(self.get_model().named_buffers())
            torch.save(buffers, folder / f"process{process_number()}-update{self.get_num_updates()}.pt")
            return result

        trainer.Trainer.train_step = step_and_write

    return prepare


def trained_by_two(corpus, folder, **more) -> str:
    ended = [training.end() for training in start_two(corpus, folder, *OPTIONS, **more)]
    assert [each.code for each in ended] == [0, 0], ended[0].printed + ended[1].printed
    return ended[0].printed


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A training's folder, and what its first process printed."""
    folder = tmp_path_factory.mktemp("statistics") / "whole"
    return folder, trained_by_two(corpus, folder, prepare=keep_buffers(folder.parent))


def test_those_of_the_first_process_are_stored_and_all_validate_with_them(corpus, whole, capsys):
    folder, printed = whole
    stored = torch.load(folder / LAST, weights_only=True)["model"]
    first, second = (torch.load(folder.parent / f"process{process}-update{UPDATES}.pt") for process in range(2))
    means = [name for name in first if name.endswith("running_mean")]
    assert means and not any(torch.equal(first[name], second[name]) for name in means)
    for name, buffer in first.items():
        assert torch.equal(stored[name], buffer), name
    capsys.readouterr()
    tiny.fairseq_validate(folder / LAST, corpus, split="valid")
    alone, together = last_figures(capsys.readouterr().out, "valid"), last_figures(printed, "valid")
    assert {"loss", "accuracy", "brier_micro"} < alone.keys()
    assert_equal_but_for_the_last_digit(together, alone)


def test_a_resumed_training_that_has_lost_those_of_the_second_process_ends_the_same(corpus, tmp_path, whole):
    folder, unbroken = whole
    trainings = start_two(corpus, tmp_path / "run", *OPTIONS)
    trainings[0].wait_for("num_updates=3")
    trainings[1].kill(signal.SIGTERM)
    stopped = [training.end() for training in trainings]
    assert [each.code for each in stopped] == [EXIT_STOPPED] * 2, stopped[0].printed + stopped[1].printed
    resumed = trained_by_two(corpus, tmp_path / "run")
    assert not difference(tmp_path / "run" / LAST, folder / LAST)
    assert figures(stopped[0].printed) | figures(resumed) == figures(unbroken)
