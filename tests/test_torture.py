"""scripts/torture.py: real commands, killed at random moments."""

import subprocess
import sys

import pytest
import tiny


def tortured(*arguments) -> tuple[int, str]:
    """Exit code and last line."""
    finished = subprocess.run(
        [sys.executable, tiny.ROOT / "scripts" / "torture.py", *arguments], capture_output=True, text=True,
        env=tiny.environment(), timeout=1800,
    )  # fmt: skip
    return finished.returncode, finished.stdout.splitlines()[-1]


@pytest.mark.torture
def test_trainings_survive_twenty_kills():
    assert tortured("-n", "20", "--seed", "1") == (0, "20 kills, 20 resumed identical")


@pytest.mark.torture
def test_preparations_survive_kills_full_disks_and_lost_files():
    assert tortured("--preparation", "-n", "8", "--seed", "1") == (0, "8 kills, 8 resumed identical")
