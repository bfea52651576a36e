"""Several trainings in one process, as a Hydra sweep has them: each is as if alone; a stopped sweep goes on."""

import signal

import forked
import pytest
import tiny
from test_resumption import arguments, trained
from training_comparison import difference, figures, rows_of

from fairseq_neupronet.checkpoints import durable as checkpoint_files

EXIT_STOPPED = 75
# The second model does not move, so that a figure of the first would stay the best; its patience ends it.
RATES = ("[0.01]", "[1e-12]")
OPTIONS = ["checkpoint.patience=3", "checkpoint.no_epoch_checkpoints=true"]


@pytest.fixture(scope="module")
def alone(corpus, tmp_path_factory):
    """Each training in a process of its own: its folder and the lines with its figures."""
    folder = tmp_path_factory.mktemp("alone")
    ended = [
        trained("plain", corpus, folder / str(number), *OPTIONS, f"optimization.lr={rate}")
        for number, rate in enumerate(RATES)
    ]
    return folder, [figures(each.printed) for each in ended]


def sweep(corpus, folder) -> list[str]:
    return arguments(
        "plain",
        corpus,
        folder,
        *OPTIONS,
        f"optimization.lr={','.join(RATES)}",
        f"hydra.sweep.dir={folder}",
        "hydra.sweep.subdir=${hydra:job.num}",
        "-m",
    )


def assert_alike(folder, expected):
    for number in range(len(RATES)):
        found, wanted = (each / str(number) / "checkpoints" for each in (folder, expected))
        for name in ("checkpoint_last.pt", "checkpoint_best.pt"):
            assert not difference(found / name, wanted / name)
        assert rows_of(found / "training.csv") == rows_of(wanted / "training.csv") != []


@pytest.mark.slow
def test_each_training_of_a_sweep_ends_as_if_it_were_alone(corpus, tmp_path, alone):
    expected, lines = alone
    best = [checkpoint_files.updates_of(expected / str(number) / "checkpoints/checkpoint_best.pt") for number in (0, 1)]
    last = [checkpoint_files.updates_of(expected / str(number) / "checkpoints/checkpoint_last.pt") for number in (0, 1)]
    assert best[0] > 1 and last[1] == 4  # there is something to leak
    ended = forked.train(sweep(corpus, tmp_path / "sweep"), tmp_path)
    assert ended.code == 0, ended.printed
    assert ended.printed.count("neupronet: finished: ") == 2
    assert_alike(tmp_path / "sweep", expected)
    assert figures(ended.printed) == set.union(*lines)


def wait_in_the_second_training():
    """At its second update, until there is a signal."""
    from fairseq import trainer

    from fairseq_neupronet.trainer import stopping

    step, seen = trainer.Trainer.train_step, []

    def slow_step(self, samples, raise_oom=False):
        result = step(self, samples, raise_oom)
        seen.append(self.get_num_updates())
        if seen.count(2) == 2 and seen[-1] == 2:
            print("waiting for a signal", flush=True)
            while not stopping.received():
                signal.pause()
        return result

    trainer.Trainer.train_step = slow_step


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_with_the_training_it_was_at(corpus, tmp_path, alone):
    expected, lines = alone
    command = sweep(corpus, tmp_path / "sweep")
    training = forked.Training(command, tmp_path, tmp_path / "first.log", wait_in_the_second_training)
    training.wait_for("waiting for a signal")
    training.kill(signal.SIGTERM)
    stopped = training.end()
    assert stopped.code == EXIT_STOPPED, stopped.printed
    assert stopped.printed.count("neupronet: finished: ") == 1
    resumed = forked.train(command, tmp_path)
    assert resumed.code == 0, resumed.printed
    assert resumed.printed.count("neupronet: finished already: ") == 1
    assert resumed.printed.count("neupronet: finished: ") == 1
    assert_alike(tmp_path / "sweep", expected)
    assert figures(stopped.printed) | figures(resumed.printed) == set.union(*lines)
    assert not figures(forked.train(command, tmp_path).printed)


def pretend_to_train(stops_at: str):
    """In the place of fairseq's training: says what it was given, and is told to stop at one learning rate."""

    def prepare():
        from fairseq_cli import hydra_train

        def training(config):
            print(f"training lr={config.optimization.lr} user_dir={config.common.user_dir}", flush=True)
            if str(config.optimization.lr) == stops_at:
                raise SystemExit(EXIT_STOPPED)

        hydra_train.pre_main = training

    return prepare


def test_a_sweep_started_again_passes_over_what_is_finished_and_finds_the_package_from_any_folder(corpus, tmp_path):
    command = sweep(corpus, tmp_path / "sweep")
    stopped = forked.train(command, tmp_path, tmp_path / "first.log", pretend_to_train("[1e-12]"))
    assert stopped.code == EXIT_STOPPED, stopped.printed
    assert stopped.printed.count(f"user_dir={tiny.ROOT / 'fairseq_neupronet'}") == 2
    assert stopped.printed.count("neupronet: finished: ") == 1
    resumed = forked.train(command, tmp_path, tmp_path / "second.log", pretend_to_train(""))
    assert resumed.code == 0, resumed.printed
    assert resumed.printed.count("neupronet: finished already: ") == resumed.printed.count("neupronet: finished: ") == 1
    assert "training lr=[1e-12]" in resumed.printed and "training lr=[0.01]" not in resumed.printed
