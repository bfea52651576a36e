"""``neupronet completion``: a script that completes commands and options in bash and zsh."""

import argparse
import shlex

_DESCRIPTION = """\
Print a script for the shell. Once: source <(neupronet completion bash). For good, put that line into ~/.bashrc, or
source <(neupronet completion zsh) into ~/.zshrc.
"""
_ZSH = "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit\n"
_FUNCTION = """\
_neupronet() {
    local word=${COMP_WORDS[COMP_CWORD]} chosen= known= i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        [[ ${COMP_WORDS[i]} == -* ]] || chosen="$chosen ${COMP_WORDS[i]}"
    done
    case "$chosen " in
%s    esac
    for i in $known; do
        # Options are offered where one begins.
        [[ $i == "$word"* && ($i != -* || $word == -*) ]] && COMPREPLY+=("$i")
    done
}
complete -o default -o bashdefault -F _neupronet neupronet
"""


def add_parser(subparsers) -> None:
    """Add ``completion``."""
    parser = subparsers.add_parser(
        "completion", help="completion of commands and options in a shell", description=_DESCRIPTION
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    from fairseq_neupronet.cli import make_parser

    print(completion_script(make_parser(), arguments.shell), end="")


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """A function for ``complete``: after some sub-commands, the next ones and the options of the last."""
    # A longer chain of commands comes first: "prepare table" before "prepare".
    cases = [
        f"        {shlex.quote(f' {chain} ')}*) known={shlex.quote(' '.join(words))} ;;\n"
        if chain
        else f"        *) known={shlex.quote(' '.join(words))} ;;\n"
        for chain, words in sorted(_words(parser, ""), key=lambda case: -len(case[0].split()))
    ]
    return (_ZSH if shell == "zsh" else "") + _FUNCTION % "".join(cases)


def _words(parser: argparse.ArgumentParser, chain: str):
    words = []
    for action in parser._actions:  # argparse has no other way to ask
        words += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                words.append(name)
                yield from _words(command, f"{chain} {name}".strip())
    yield chain, words
