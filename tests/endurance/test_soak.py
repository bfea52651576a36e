"""tests/endurance/soak.py: what it measures of a training, and what it calls growth."""

import os
import signal
import subprocess
import sys
import time

import pytest
import soak


def sawtooth(mib_an_hour: float, handles_an_hour: float = 0.0) -> list[tuple]:
    """Two hours, a sample each 5 s, up and down by 400 MiB and 90 handles, as with a loader's processes."""
    hours = [second / 3600 for second in range(0, 7200, 5)]
    return [
        (
            hour * 3600,
            1200 + mib_an_hour * hour + 4 * (n % 7),
            1000 + 400 * (n % 5 > 2) + mib_an_hour * hour,
            39 + 90 * (n % 4 > 1) + int(handles_an_hour * hour),
            n,
        )
        for n, hour in enumerate(hours)
    ]


@pytest.mark.parametrize(("mib", "handles"), [(0, 0), (25, 0), (0, 12), (-5, 0)])
def test_growth_is_that_of_the_top_of_the_ups_and_downs(mib, handles):
    assert soak.growth(sawtooth(mib, handles)) == pytest.approx(
        {"resident_mib": mib, "all_processes_mib": mib, "handles": handles}, abs=1
    )


def test_the_warm_up_is_left_out():
    samples = [(second, min(second, 1000), 100, 40, 0) for second in range(0, 7200, 5)]
    assert soak.growth(samples)["resident_mib"] == 0


def test_handles_and_memory_are_those_of_the_process_and_its_session():
    code = (
        "import subprocess, sys; from subprocess import PIPE\n"
        "files = [open('/dev/null') for _ in range({files})]; block = bytearray({mib} << 20)\n"
        "code = 'block = bytearray(50 << 20); print(1, flush=True); input()'\n"
        "child = {child} and subprocess.Popen([sys.executable, '-c', code], stdin=PIPE, stdout=PIPE)\n"
        "child and child.stdout.readline(); print('ready', flush=True); input()"
    )

    def measured(**sizes) -> tuple[float, float, int]:
        process = subprocess.Popen(
            [sys.executable, "-c", code.format(**sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        process.stdout.readline()
        try:
            return soak.measure(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    small, large = measured(files=0, mib=0, child=False), measured(files=30, mib=100, child=False)
    assert large[2] - small[2] == 30
    assert large[0] - small[0] == pytest.approx(100, abs=5)
    assert large[1] - small[1] == pytest.approx(100, abs=5)
    with_child = measured(files=0, mib=0, child=True)
    assert with_child[0] - small[0] == pytest.approx(0, abs=5)
    assert with_child[1] - small[1] > 50


def test_a_process_that_has_just_ended_is_an_error_of_the_system():
    ended = subprocess.Popen(["true"], start_new_session=True)
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie, as the training before it is waited for
    with pytest.raises(OSError):
        soak.measure(ended.pid)
    ended.wait()


def test_each_checkpoint_is_read_once_and_one_that_cannot_be_is_a_finding(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("fairseq_neupronet.inference.model.load", lambda path: read.append(path.read_text()))
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    checkpoints = soak.Checkpoints(tmp_path)
    (folder / "checkpoint_last.pt").write_text("one")
    checkpoints.read_new()
    checkpoints.read_new()
    time.sleep(0.05)
    (folder / "new").write_text("two")
    (folder / "new").replace(folder / "checkpoint_last.pt")
    checkpoints.read_new()
    assert read == ["one", "two"] and checkpoints.n_read == 2 and not checkpoints.problems
    monkeypatch.undo()
    (folder / "checkpoint_best.pt").write_text("torn")
    checkpoints.read_new()
    (problem,) = checkpoints.problems
    assert "checkpoint_best.pt" in problem and checkpoints.n_read == 2
    assert not checkpoints._link.exists()
