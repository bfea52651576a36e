"""Stop signals that reach the loader's processes before the training has come to its end."""

import signal
from types import SimpleNamespace

import pytest

from fairseq_neupronet.trainer import patches as fairseq_patches
from fairseq_neupronet.trainer import stopping

CONFIG = SimpleNamespace(optimization=SimpleNamespace(max_update=0), checkpoint=SimpleNamespace(patience=-1))
TRAINER = SimpleNamespace(get_num_updates=lambda: 7)
# Of torch's loader: it looks after its processes, or asks one that has ended for a batch's memory.
ENDED = [
    RuntimeError("DataLoader worker (pid 5) is killed by signal: Terminated."),
    EOFError(),
    ConnectionResetError(104),
    ConnectionRefusedError(111),
    FileNotFoundError(2, "No such file or directory"),
]


def train(monkeypatch, error: Exception, received: list[int]):
    def fail(*arguments):
        raise error

    monkeypatch.setitem(fairseq_patches._originals, "train", fail)
    monkeypatch.setattr(stopping, "_received", received)
    fairseq_patches._train(CONFIG, TRAINER, None, None)


@pytest.mark.parametrize("error", ENDED, ids=lambda error: type(error).__name__)
def test_a_signal_to_the_loaders_processes_too_ends_with_one_sentence(monkeypatch, capsys, error):
    with pytest.raises(SystemExit) as ended:
        train(monkeypatch, error, [signal.SIGTERM])
    assert ended.value.code == stopping.EXIT_CODE
    said = capsys.readouterr().err
    assert said == (
        "neupronet: stopped by SIGTERM: update 7 is not saved, an earlier one is; the same command resumes\n"
    )


@pytest.mark.parametrize("error", ENDED, ids=lambda error: type(error).__name__)
def test_without_a_signal_the_error_is_told(monkeypatch, error):
    with pytest.raises(type(error)):
        train(monkeypatch, error, [])


def test_another_error_is_told_though_there_was_a_signal(monkeypatch):
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), [signal.SIGTERM])
