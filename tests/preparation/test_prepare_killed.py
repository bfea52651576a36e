"""A preparation that is killed leaves no process behind."""

import signal
import sys

import numpy as np
import pytest
import soundfile
from running_command import RunningCommand, left_behind

N_CLIPS = 200  # so many that workers are started, and at work when the kill comes


@pytest.mark.slow
def test_the_workers_of_a_killed_preparation_end(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["path,label,profile,split"]
    for number in range(N_CLIPS):
        soundfile.write(tmp_path / f"{number}.wav", rng.normal(size=16000) / 10, 16000)
        rows.append(f"{number}.wav,a,p,train")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    command = [
        sys.executable,
        "-m",
        "fairseq_neupronet",
        "prepare",
        "table",
        "--metadata",
        str(tmp_path / "clips.csv"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "2",
    ]
    run = RunningCommand(command, tmp_path / "log.txt")
    run.wait_until(lambda: any((tmp_path / "out").rglob("*.npy")))
    assert run.kill(signal.SIGKILL), run.printed
    assert not left_behind([run], tmp_path)
