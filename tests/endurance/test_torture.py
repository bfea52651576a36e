"""tests/endurance/torture.py: real commands, killed at random moments; and what it takes for a kill, and for a difference."""

import signal
import subprocess
import sys
import time

import pytest
import tiny
import torch
from running_command import RunningCommand, left_behind, tracebacks
from torture_preparation import files_of
from training_comparison import difference, figures, rows_of

KILLS = {"training": 20, "preparation": 4, "benchmark": 3}  # 20 each where nobody says


@pytest.mark.slow
@pytest.mark.parametrize("subject", KILLS)
def test_what_is_killed_and_started_again_ends_as_if_nobody_had(subject):
    command = [
        sys.executable,
        tiny.ROOT / "tests" / "endurance" / "torture.py",
        f"--{subject}",
        "-n",
        str(KILLS[subject]),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, env=tiny.environment())
    n_kills = KILLS[subject]
    assert finished.stdout.splitlines()[-1] == f"{n_kills} kills, {n_kills} resumed identical", finished.stdout
    assert finished.returncode == 0


def python(code: str, folder) -> RunningCommand:
    return RunningCommand([sys.executable, "-c", code], folder / "log.txt")


def test_a_kill_counts_where_the_command_still_ran(tmp_path):
    run = python("print('here', flush=True); import time; time.sleep(60)", tmp_path)
    run.wait_for("here")
    assert run.kill(signal.SIGTERM) and run.process.returncode == -signal.SIGTERM
    ended = python("print('there')", tmp_path)
    ended.wait_for("never")
    assert not ended.kill(signal.SIGKILL) and ended.printed == "there\n"


def test_a_signal_that_a_command_survives_is_no_kill(tmp_path):
    run = python(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('here', flush=True); time.sleep(1)",
        tmp_path,
    )
    run.wait_for("here")
    assert not run.kill(signal.SIGTERM)


def test_processes_that_a_command_leaves_are_counted_and_ended(tmp_path):
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    run = python(code, tmp_path)
    run.wait()
    (left,) = left_behind([run], tmp_path, seconds=0.5)
    assert left.startswith("processes left behind: 1 (") and "import time; time.sleep(60)" in left
    time.sleep(0.2)
    assert left_behind([run], tmp_path, seconds=0.5) == []


def test_whoever_asks_what_is_left_is_not_left_behind(tmp_path):
    asks = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
        "from running_command import left_behind; print(left_behind([], Path(sys.argv[2]), seconds=0.3))"
    )
    # The shell that starts it has the folder in its command as well.
    shell = f"'{sys.executable}' -c \"{asks}\" '{tiny.ROOT / 'scripts'}' '{tmp_path}'; exit $?"
    finished = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, start_new_session=True)
    assert finished.stdout == "[]\n", finished


def test_a_traceback_is_told_by_what_it_ends_in(tmp_path):
    run = python("print('epoch 1', flush=True)\ndef f():\n    raise OSError('no disk')\nf()", tmp_path)
    run.wait()
    assert tracebacks(run.printed) == ["a traceback: OSError: no disk"]
    assert tracebacks("epoch 1\nneupronet: error: no disk\n") == []


def test_a_worker_whose_parent_is_killed_while_starting_it_is_no_finding(tmp_path):
    starting = (
        "import os, sys; from multiprocessing.spawn import spawn_main; sys.argv += ['--multiprocessing-fork']; "
        "read, write = os.pipe(); os.close(write); spawn_main(pipe_handle=read, tracker_fd=os.dup(read))"
    )
    run = python(starting, tmp_path)
    run.wait()
    assert "EOFError" in run.printed and tracebacks(run.printed) == []
    served = (
        'Traceback (most recent call last):\n  File "/usr/lib/python3.11/multiprocessing/resource_sharer.py", '
        "line 138, in _serve\n    with self._listener.accept() as conn:\nConnectionResetError: [Errno 104]\n"
    )
    assert tracebacks(served) == []
    later = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nKeyError: 1\n'
    assert tracebacks(run.printed + later) == ["a traceback: KeyError: 1"]
    ours = run.printed.replace("multiprocessing/spawn.py", "fairseq_neupronet/files.py", 1)
    assert len(tracebacks(ours)) == 1


def checkpoint(path, weight: float, seconds: float):
    torch.save(
        {
            "model": {"weight": torch.tensor([1.0, weight])},
            "cfg": {"folder": str(path)},
            "optimizer_history": [{"num_updates": 3}],
            "extra_state": {"previous_training_time": seconds, "best": 0.5},
        },
        path,
    )
    return path


def test_checkpoints_differ_by_the_last_bit_of_a_weight_and_not_by_the_clock(tmp_path):
    one = checkpoint(tmp_path / "one.pt", 2.0, 10.0)
    assert difference(checkpoint(tmp_path / "later.pt", 2.0, 20.0), one) == ""
    next_number = float(torch.nextafter(torch.tensor(2.0), torch.tensor(3.0)))
    assert "/model/weight" in difference(checkpoint(tmp_path / "other.pt", next_number, 10.0), one)


def test_figures_are_compared_without_the_clock(tmp_path):
    line = "[train_inner][INFO] - {{'loss': 1}}, loss={}, wps={}, wall={}\n"
    assert figures(line.format(0.5, 100, 3)) == figures(line.format(0.5, 200, 4)) != figures(line.format(0.6, 100, 3))
    for name, loss, wall in (("a", "0.5", "3"), ("b", "0.5", "4"), ("c", "0.6", "3")):
        (tmp_path / name).write_text(f"epoch,updates,train_loss,train_wall\n1,5,{loss},{wall}\n")
    a, b, c = (rows_of(tmp_path / name) for name in "abc")
    assert a == b != c
    assert rows_of(tmp_path / "none") == []


def test_files_are_compared_with_hidden_ones(tmp_path):
    (tmp_path / ".left.tmp").write_bytes(b"x")
    assert files_of(tmp_path) == {".left.tmp": b"x"}
