"""The command as a whole: what it lists."""

from fairseq_neupronet.cli import main, make_parser


def test_without_arguments_every_command_is_listed_once_in_its_group(capsys):
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = ("data", "training", "evaluation", "use of a trained model")
    places = [lines.index(title) for title in titles]
    assert places == sorted(places)
    (commands,) = [action.choices for action in make_parser()._actions if hasattr(action, "choices") and action.choices]
    for name in commands:
        (line,) = [number for number, line in enumerate(lines) if line.startswith(f"  {name} ")]
        assert line > places[0] and len(lines[line].split()) > 2
