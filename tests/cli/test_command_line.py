"""The command as a whole: what it lists, and what a shell completes."""

import subprocess

import pytest

from fairseq_neupronet.cli import main, make_parser
from fairseq_neupronet.cli.completion import completion_script


def test_without_arguments_every_command_is_listed_once_in_its_group(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = ("data", "training", "evaluation", "use of a trained model", "this command")
    places = [lines.index(title) for title in titles]
    assert places == sorted(places)
    (commands,) = [action.choices for action in make_parser()._actions if hasattr(action, "choices") and action.choices]
    for name in commands:
        (line,) = [number for number, line in enumerate(lines) if line.startswith(f"  {name} ")]
        assert line > places[0] and len(lines[line].split()) > 2


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = completion_script(make_parser(), "bash")
    asked = 'COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _neupronet; printf "%s\\n" "${COMPREPLY[@]}"'
    finished = subprocess.run(
        ["bash", "-c", f"{script}\n{asked}", "bash", *words], capture_output=True, text=True, timeout=30, check=True
    )
    return finished.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("neupronet", "pre"), ["prepare", "predict"]),
        (("neupronet", "prepare", ""), ["table", "vocalsound", "urbansound8k", "icbhi"]),
        (("neupronet", "prepare", "vocalsound", "--train"), ["--train-speakers-every"]),
        (("neupronet", "predict", "--path", "a.pt", "--prof"), ["--profile", "--profile-from", "--profiles"]),
        (("neupronet", "predict", "a.w"), []),
        (("neupronet", "pre", "--no-such"), []),
    ],
)
def test_bash_completes_commands_and_the_options_of_the_command(words, offered):
    assert completed(*words) == offered


def test_the_script_for_zsh_is_that_for_bash_behind_its_own_start():
    bash, zsh = (completion_script(make_parser(), shell) for shell in ("bash", "zsh"))
    assert zsh.endswith(bash) and zsh.startswith("autoload")
