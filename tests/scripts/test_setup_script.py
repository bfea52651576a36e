"""scripts/setup.sh: its refusals, by their sentences, and its second run, on fake programs and without a network."""

import fcntl
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    *("awk", "bash", "basename", "cat", "chmod", "cksum", "cp", "cut", "df", "dirname"),
    *("find", "flock", "grep", "mkdir", "mv", "rm", "tail", "touch", "uname", "wc"),
)

# Stands for every Python: FAKE_VERSION is what it reports, FAKE_HAS the distributions it has, and FAKE_PIP what pip
# says on its way to failing. What pip was asked for goes to FAKE_CALLS.
PYTHON = r"""#!/usr/bin/env bash
case "$1 ${2:-}" in
    "-c import sys"*) echo "${FAKE_VERSION:-3.11.7}" ;;
    "-c import ensurepip"*) [[ -z ${FAKE_NO_VENV:-} ]] ;;
    "-c from importlib.metadata"*) [[ $2 =~ \'(.*)\' && " ${FAKE_HAS:-} " == *" ${BASH_REMATCH[1]} "* ]] ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        [[ $3 == install ]] || exit 0
        echo "${*:4}" >>"$FAKE_CALLS"
        if [[ -n ${FAKE_PIP:-} ]]; then
            echo "$FAKE_PIP"
            exit 1
        fi
        if [[ $* == *" -e "* ]]; then
            touch "${0%/*}/neupronet" && chmod +x "${0%/*}/neupronet"
        fi
        ;;
esac
"""


class FakeMachine:
    """A copy of the set-up's files, and a PATH on which there is only what a test puts there."""

    def __init__(self, folder: Path):
        self.repository = folder / "repository"
        self.programs = folder / "programs"
        self.calls = folder / "calls"
        self.venv = self.repository / ".venv"
        self.programs.mkdir(parents=True)
        shutil.copytree(ROOT / "scripts", self.repository / "scripts")
        for name in ("setup.py", "pyproject.toml"):
            shutil.copy(ROOT / name, self.repository)
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.programs / tool).symlink_to(found)
        self.add("python3", PYTHON)
        self.add("c++", "#!/usr/bin/env bash\n")
        self.set_free_disk(99)

    def add(self, name: str, text: str) -> None:
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def set_free_disk(self, gigabytes: int) -> None:
        self.add("df", f"#!/usr/bin/env bash\necho head\necho disk 1 1 {gigabytes * 2**20} 1% /\n")

    def setup(self, **variables: str) -> subprocess.CompletedProcess:
        environment = {"PATH": str(self.programs), "FAKE_CALLS": str(self.calls), "HOME": os.environ.get("HOME", "/")}
        command = [str(self.programs / "bash"), "scripts/setup.sh"]
        return subprocess.run(
            command, cwd=self.repository, env=environment | variables, capture_output=True, text=True, timeout=30
        )

    def refusal(self, **variables: str) -> str:
        """The one sentence with which a set-up refuses."""
        result = self.setup(**variables)
        assert result.returncode == 1, result.stdout + result.stderr
        lines = result.stderr.splitlines()
        assert len(lines) == 1 and lines[0].startswith("setup: ") and lines[0].endswith((".", ")."))
        return lines[0]

    def asked_of_pip(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path):
    return FakeMachine(tmp_path)


def test_installs_in_order_then_has_nothing_to_do(machine):
    first = machine.setup()
    assert first.returncode == 0, first.stdout + first.stderr
    asked = machine.asked_of_pip()
    assert all(line.startswith("-c scripts/constraints.txt") for line in asked)
    assert [line.split()[-1] for line in asked] == ["numpy", "torchvision", "fairseq-fixed", ".[fairseq,test]"]
    assert not (machine.venv / "setup.tmp").exists()

    second = machine.setup()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert machine.asked_of_pip() == asked


@pytest.mark.parametrize("changed", ["setup.py", "pyproject.toml", "scripts/constraints.txt", "scripts/setup.sh"])
def test_a_change_sets_up_again(machine, changed):
    machine.setup()
    with (machine.repository / changed).open("a") as file:
        file.write("# changed\n")
    assert machine.setup().returncode == 0
    assert len(machine.asked_of_pip()) == 8


def test_a_failed_setup_goes_on_in_the_same_environment(machine):
    machine.refusal(FAKE_PIP="ERROR: something")
    kept = machine.venv / "kept"
    kept.touch()
    assert machine.setup().returncode == 0
    assert kept.exists()
    assert machine.setup().stdout == ""


def test_an_environment_that_was_moved_is_made_anew(machine):
    machine.setup()
    (machine.venv / "old").touch()
    machine.repository = machine.repository.rename(machine.repository.parent / "elsewhere")
    result = machine.setup()
    assert result.returncode == 0 and "is made anew" in result.stdout
    assert not (machine.repository / ".venv" / "old").exists()


def test_a_second_setup_waits_for_the_first(machine):
    machine.venv.mkdir()
    folder = os.open(machine.venv, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    threading.Timer(0.5, os.close, [folder]).start()
    result = machine.setup()
    assert result.returncode == 0
    assert "another set-up of" in result.stdout.splitlines()[0]


def test_named_environment_is_used(machine, tmp_path):
    assert machine.setup(NEUPRONET_VENV="../named").returncode == 0
    assert (tmp_path / "named" / "setup.stamp").exists()
    assert not machine.venv.exists()


def test_a_named_folder_that_is_no_environment_is_left_alone(machine, tmp_path):
    thesis = tmp_path / "home" / "thesis.tex"
    thesis.parent.mkdir()
    thesis.touch()
    assert "is not an environment" in machine.refusal(NEUPRONET_VENV=str(thesis.parent))
    assert list(thesis.parent.iterdir()) == [thesis]


@pytest.mark.parametrize("version", ["2.7.18", "3.9.18", "3.10.13", "3.13.0"])
def test_other_pythons_are_refused(machine, version):
    sentence = machine.refusal(FAKE_VERSION=version)
    assert f"Python 3.11 or 3.12 is needed, and python3 here is {version}: install one" in sentence
    assert not machine.asked_of_pip()


def test_no_python_at_all_is_refused(machine):
    (machine.programs / "python3").unlink()
    assert "Python 3.11 or 3.12 is needed: install one" in machine.refusal()


def test_a_python_that_does_not_run_is_passed_over(machine):
    machine.add("python3", "#!/usr/bin/env bash\necho 'pyenv: python3: command not found' >&2\nexit 127\n")
    machine.add("python3.12", PYTHON)
    result = machine.setup(FAKE_VERSION="3.12.1")
    assert result.returncode == 0 and "Python 3.12.1" in result.stdout


def test_a_named_python_of_another_version_is_refused(machine):
    sentence = machine.refusal(NEUPRONET_PYTHON="python3", FAKE_VERSION="3.9.18")
    assert "NEUPRONET_PYTHON names a Python 3.9.18, and 3.11 or 3.12 is needed" in sentence
    assert "which does not run" in machine.refusal(NEUPRONET_PYTHON="no-such-python")


def test_an_environment_of_another_python_is_refused(machine):
    machine.setup()
    assert "holds Python 3.13.0, and 3.11 or 3.12 is needed: remove it" in machine.refusal(FAKE_VERSION="3.13.0")


def test_a_missing_venv_module_is_named(machine):
    sentence = machine.refusal(FAKE_NO_VENV="1")
    assert "install its venv module" in sentence and "python3.11-venv" in sentence


def test_a_missing_compiler_is_named_before_anything_is_downloaded(machine):
    (machine.programs / "c++").unlink()
    sentence = machine.refusal()
    assert "there is no C++ compiler: install one" in sentence and "build-essential" in sentence
    assert not machine.asked_of_pip()


def test_no_compiler_is_needed_where_fairseq_is_a_wheel_or_there_already(machine):
    (machine.programs / "c++").unlink()
    machine.add("uname", "#!/usr/bin/env bash\necho Linux x86_64\n")
    assert machine.setup(FAKE_VERSION="3.12.1").returncode == 0
    assert machine.setup(FAKE_VERSION="3.11.7", FAKE_HAS="fairseq-fixed torch").returncode == 0


def test_another_distribution_of_fairseq_is_left_alone(machine):
    assert "holds another distribution of fairseq" in machine.refusal(FAKE_HAS="torch fairseq")
    assert not machine.asked_of_pip()


def test_a_full_disk_is_refused_before_anything_is_downloaded(machine):
    machine.set_free_disk(3)
    sentence = machine.refusal()
    assert "about 9 GB of free disk are needed" in sentence and "there are 3" in sentence
    assert not machine.asked_of_pip()


def test_little_disk_is_enough_where_torch_is_there(machine):
    machine.refusal(FAKE_PIP="ERROR: something")
    machine.set_free_disk(3)
    assert machine.setup(FAKE_HAS="torch").returncode == 0


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "free about 9 GB"),
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)': /simple/torch/\n"
            "ERROR: No matching distribution found for torch",
            "cannot reach the package index: check the network",
        ),
        ("error: command 'g++' failed: No such file or directory", "could not be compiled"),
        ("ERROR: ResolutionImpossible", "its last words are 'ERROR: ResolutionImpossible'"),
    ],
)
def test_a_failure_of_pip_is_told_in_a_sentence_that_names_the_log(machine, words, cure):
    sentence = machine.refusal(FAKE_PIP=words)
    log = machine.venv / "setup.log"
    assert cure in sentence and str(log) in sentence
    assert words in log.read_text()
