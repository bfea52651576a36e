"""The walk-throughs' commands, which CI runs: that the script finds all of them, and that they exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fairseq_neupronet.cli import make_parser

ROOT = Path(__file__).parents[2]
NAMES = ("own_data", "speakers", "machine_sounds", "own_backbone")


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "scripts/walkthroughs.sh", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_are_those_of_the_page_and_are_well_formed(name):
    page = (ROOT / "examples" / name / "README.md").read_text(encoding="utf-8")
    expected = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    printed = [line[2:] for line in run("--dry-run", name).stdout.splitlines() if line.startswith("$ ")]
    assert printed == expected and len(expected) > 4
    for command in expected:
        words = shlex.split(command.partition(" | ")[0])
        if words[0] == "neupronet":
            make_parser().parse_args(words[1:])


def test_all_of_them_run_without_a_name():
    said = run("--dry-run").stdout
    assert [line.partition("examples/")[2] for line in said.splitlines() if "walkthroughs: " in line] == list(NAMES)


def test_an_unknown_walk_through_is_named():
    finished = run("--dry-run", "no_such")
    assert finished.returncode == 1 and "examples/no_such/README.md: no such walk-through" in finished.stderr
