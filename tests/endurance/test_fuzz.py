"""A quarter of a minute of coverage-guided fuzzing of each target, from other seeds than by hand."""

import subprocess
import sys

import pytest
import tiny

TARGETS = ("manifest", "dictionary", "convolutions", "npy", "audio")


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_while_of_fuzzing_finds_nothing(target, tmp_path):
    pytest.importorskip("atheris")
    command = [sys.executable, tiny.ROOT / "tests" / "endurance" / "fuzz.py", target, "--seconds", "15", "--seed", "7"]
    finished = subprocess.run(
        command, cwd=tmp_path, env=tiny.environment(), capture_output=True, text=True, timeout=240
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    executions = int(finished.stdout.splitlines()[-1].removeprefix(f"{target}: ").split()[0])
    assert executions > 10  # on a busy machine
    assert not list(tmp_path.glob("crash-*"))
