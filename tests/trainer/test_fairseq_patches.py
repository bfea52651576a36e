"""What is replaced in fairseq: only where it is the fairseq that we know; and what a batch draws."""

import logging
import pickle
import subprocess
import sys
from unittest import mock

import fairseq
import numpy as np
import pytest
import tiny
import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer
from fairseq_cli import train as training_command

from fairseq_neupronet.runs import log
from fairseq_neupronet.trainer import patches as fairseq_patches
from fairseq_neupronet.trainer.patches import patch_fairseq
from fairseq_neupronet.trainer.processes import draws_of_batch
from fairseq_neupronet.trainer.stopping import early_stopping_state, restore_early_stopping

REPLACED = [
    (checkpoint_utils, "torch_persistent_save"),
    (checkpoint_utils, "load_checkpoint"),
    (checkpoint_utils, "load_checkpoint_to_cpu"),
    (checkpoint_utils, "PathManager"),
    (training_command, "train"),
    (training_command, "validate_and_save"),
    (Trainer, "_check_grad_norms"),
    (Trainer, "valid_step"),
]


@pytest.fixture
def stock(monkeypatch):
    """fairseq as it comes; whatever a test replaces is put back."""
    patch_fairseq()
    for module, name in REPLACED:
        monkeypatch.setattr(module, name, fairseq_patches._originals[name])
    for name in ("all_gather_list", "call_main"):
        monkeypatch.setattr(fairseq.distributed.utils, name, fairseq_patches._originals[name])
    monkeypatch.setattr(fairseq_patches, "_originals", {})


def test_the_fairseq_here_is_patched_without_a_word_and_once(stock, caplog):
    before = [getattr(module, name) for module, name in REPLACED]
    patch_fairseq()
    patched = [getattr(module, name) for module, name in REPLACED]
    assert not set(map(id, before)) & set(map(id, patched))
    patch_fairseq()
    assert [getattr(module, name) for module, name in REPLACED] == patched
    assert not caplog.records
    assert checkpoint_utils.PathManager.exists == PathManager.exists


def test_another_version_is_said_in_one_line(stock, caplog):
    with mock.patch.object(fairseq, "__version__", "0.13.0"), caplog.at_level(logging.WARNING):
        patch_fairseq()
    (record,) = caplog.records
    assert record.message.startswith("fairseq 0.13.0: fairseq_neupronet is tested with 0.12.3.1")


def test_a_function_of_other_arguments_is_left_alone_with_a_warning(stock, caplog, monkeypatch):
    def load_checkpoint(cfg, trainer, something_new, **passthrough_args):
        pass

    monkeypatch.setattr(checkpoint_utils, "load_checkpoint", load_checkpoint)
    with caplog.at_level(logging.WARNING):
        patch_fairseq()
    assert checkpoint_utils.load_checkpoint is load_checkpoint
    assert checkpoint_utils.torch_persistent_save is fairseq_patches._torch_persistent_save
    (record,) = caplog.records
    assert "load_checkpoint takes other arguments than in 0.12.3.1 and is left as it is" in record.message


def test_a_copy_that_fails_leaves_what_it_would_replace(tmp_path):
    patch_fairseq()
    source, target = tmp_path / "checkpoint_best.pt", tmp_path / "checkpoint_last.pt"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    with mock.patch("shutil.copyfileobj", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        checkpoint_utils.PathManager.copy(str(source), str(target), overwrite=True)
    assert target.read_bytes() == b"old"
    assert checkpoint_utils.PathManager.copy(str(source), str(target), overwrite=True)
    assert target.read_bytes() == b"new"


def test_early_stopping_is_put_back(monkeypatch):
    def decide():
        pass

    monkeypatch.setattr(training_command, "should_stop_early", decide)
    assert early_stopping_state() == {}
    decide.best, decide.num_runs = 0.5, 2
    state = early_stopping_state()
    assert state == {"best": 0.5, "num_runs": 2}
    del decide.best, decide.num_runs
    restore_early_stopping(state)
    assert (decide.best, decide.num_runs) == (0.5, 2)


def test_a_training_does_not_know_the_best_figures_of_an_earlier_one_in_its_process(monkeypatch):
    patch_fairseq()

    class Loads(Exception):
        pass

    def load(cfg, trainer, **passthrough_args):
        raise Loads

    def decide():
        pass

    def save():
        pass

    monkeypatch.setitem(fairseq_patches._originals, "load_checkpoint", load)
    monkeypatch.setattr(training_command, "should_stop_early", decide)
    monkeypatch.setattr(checkpoint_utils, "save_checkpoint", save)
    monkeypatch.setattr("fairseq_neupronet.trainer.stopping.listen", lambda: None)
    save.best = decide.best = 0.9
    decide.num_runs = 2
    trainer = mock.Mock(data_parallel_rank=0)
    with pytest.raises(Loads):
        checkpoint_utils.load_checkpoint(mock.Mock(restore_file="other.pt"), trainer)
    assert not vars(save) and not vars(decide)


def test_what_is_to_be_done_before_a_checkpoint_is_written_is_done_once(tmp_path):
    patch_fairseq()
    path, seen = tmp_path / "checkpoint_last.pt", []
    fairseq_patches._before_saving.append(lambda: seen.append(path.exists()))
    for _ in range(2):
        checkpoint_utils.torch_persistent_save({"model": {}}, str(path))
    assert seen == [False]


def test_a_training_with_nothing_left_to_do_is_passed_over_once():
    patch_fairseq()
    called = mock.Mock()
    with mock.patch.dict(fairseq_patches._originals, {"call_main": called}):
        fairseq_patches.skip_training()
        fairseq.distributed.utils.call_main("config", "main")
        assert not called.called
        fairseq.distributed.utils.call_main("config", "main", more=1)
    called.assert_called_once_with("config", "main", more=1)


def test_every_process_of_a_training_is_prepared_also_one_that_fairseq_starts():
    """A process of fairseq's gets the main function by pickle, and has imported nothing of this package before."""
    patch_fairseq()
    called = mock.Mock()
    with (
        mock.patch.object(fairseq_patches, "_preparations", []),
        mock.patch.dict(fairseq_patches._originals, {"call_main": called}),
    ):
        for _ in range(2):
            fairseq_patches.prepare_each_process(log.begin)
        fairseq.distributed.utils.call_main("config", print)
    (_, main), _ = called.call_args
    code = (
        "import pickle, sys; pickle.load(sys.stdin.buffer)('trained'); "
        "from fairseq.tasks import TASK_REGISTRY; from fairseq_neupronet.trainer import patches; "
        "print(len(patches._followers), 'spectrogram_finetuning' in TASK_REGISTRY)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(main), env=tiny.environment(), capture_output=True, timeout=120
    )
    assert finished.stdout.decode().split() == ["trained", "1", "True"], finished.stderr.decode()


@pytest.mark.parametrize("end_of_epoch", [False, True])
def test_an_update_is_followed_before_its_checkpoint_is_written_and_the_training_finished(
    tmp_path, monkeypatch, end_of_epoch
):
    patch_fairseq()
    path, seen = tmp_path / "checkpoint_last.pt", []

    def save(cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch):
        checkpoint_utils.torch_persistent_save({"model": {}}, str(path))
        return [0.5], False

    def follow(config, trainer, task, epoch, end_of_epoch):
        seen.append((task, epoch, end_of_epoch, path.exists()))

    monkeypatch.setattr(fairseq_patches, "_followers", {follow: lambda: seen.append("finished")})
    monkeypatch.setitem(fairseq_patches._originals, "validate_and_save", save)
    config = mock.Mock(**{"optimization.max_epoch": 3})
    arguments = config, mock.Mock(), "task", mock.Mock(epoch=3), ["valid"], end_of_epoch
    assert fairseq_patches._validate_and_save(*arguments) == ([0.5], False)
    assert seen == [("task", 3, end_of_epoch, False), *["finished"] * end_of_epoch]


# ---- what a batch draws --------------------------------------------------------------------------------------------


def drawn(update_seed: int, n_batches: int = 1, process: int = 0) -> list[tuple[float, float]]:
    """A number of torch's and one of numpy's for each batch of an update, as fairseq seeds it."""
    torch.manual_seed(update_seed)
    numbers = []
    for _ in range(n_batches):
        with draws_of_batch(process):
            numbers.append((float(torch.rand(())), float(np.random.random())))
    return numbers


def test_draws_depend_on_update_batch_and_process_alone():
    np.random.seed(1)
    first = drawn(5, n_batches=3)
    np.random.seed(2)
    assert drawn(5, n_batches=3) == first
    others = [*first, *drawn(6, n_batches=3), *drawn(5, n_batches=3, process=1)]
    assert len({number for pair in others for number in pair}) == 2 * 9


def test_numpys_generator_is_as_it_was_afterwards_also_after_an_error():
    np.random.seed(3)
    expected = np.random.RandomState(3).random(2)
    drawn(1)
    assert np.random.random() == expected[0]
    with pytest.raises(ValueError), draws_of_batch(0):
        raise ValueError
    assert np.random.random() == expected[1]
