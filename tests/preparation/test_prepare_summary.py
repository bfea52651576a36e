"""What ``neupronet prepare`` prints at the end."""

import numpy as np
import soundfile

from fairseq_neupronet.cli import main


def test_the_summary_counts_and_warns(tmp_path, capsys):
    rows = [
        ("train", "v1", "a"),
        ("train", "v1", "b"),
        ("train", "v2", "a"),
        ("train", "v2", "a"),
        ("train", "", "b"),
        ("valid", "v1", "a"),
        ("valid", "v3", "a"),
        ("valid", "v3", "b"),
        ("test", "v4", "a"),
        ("test", "v4", "a"),
        ("test", "v4", "b"),
    ]
    lines = ["path,label,profile,split\n"]
    for number, (split, profile, label) in enumerate(rows):
        soundfile.write(tmp_path / f"{number}.wav", np.zeros(500), 22500)
        lines.append(f"{number}.wav,{label},{profile},{split}\n")
    (tmp_path / "clips.csv").write_text("".join(lines))
    assert (
        main(
            [
                "prepare",
                "table",
                "--metadata",
                str(tmp_path / "clips.csv"),
                "--out",
                str(tmp_path / "out"),
                "--workers",
                "1",
            ]
        )
        == 0
    )
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["class", "train", "valid", "test"] in printed
    assert ["a", "3", "2", "2"] in printed and ["b", "2", "1", "1"] in printed
    assert ["all", "clips", "5", "3", "3"] in printed and ["profiles", "3", "2", "1"] in printed
    warnings = [" ".join(line) for line in printed if line[0] == "warning:"]
    assert len(warnings) == 3
    assert "1 of 5 profiles lie in two splits or more (e.g. v1)" in warnings[0]
    assert "1 of 4 profiles with two clips or more hold one class only" in warnings[1]
    assert "majority vote and mean probability" in warnings[1]
    assert "2 of 4 profiles with two clips or more hold each class equally often (2 of them one clip" in warnings[2]
    assert "balanced assignment and profile-centred logits" in warnings[2]
