"""Files that are either whole or absent."""

import os
import subprocess

import pytest

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file, sweep_temporaries


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as stream:
        stream.write("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_parents_are_made_and_lines_end_alike_everywhere(tmp_path):
    with atomic_file(tmp_path / "a/b/file.txt") as stream:
        stream.write("one\nzwölf\n")
    assert (tmp_path / "a/b/file.txt").read_bytes() == "one\nzwölf\n".encode()


def test_a_file_in_the_way_is_one_sentence(tmp_path):
    (tmp_path / "a").write_text("")
    message = r"a.file.txt: cannot be written \(.*\); free the disk or choose a folder"
    with pytest.raises(InputError, match=message), atomic_file(tmp_path / "a/file.txt") as stream:
        stream.write("")


def test_what_a_killed_process_left_is_swept_away_and_what_another_writes_is_not(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    unreaped = subprocess.Popen(["true"])  # as where a container's first process waits for nobody
    os.waitid(os.P_PID, unreaped.pid, os.WEXITED | os.WNOWAIT)
    kept = [f".a.npy.{os.getpid()}.tmp", ".b.npy.1.tmp", ".c.tmp", "d.npy.tmp", "e.npy"]
    for name in (*kept, f".f.npy.{ended.pid}.tmp", f".g.npy.{unreaped.pid}.tmp"):
        (tmp_path / "features").mkdir(exist_ok=True)
        (tmp_path / "features" / name).write_text("")
    sweep_temporaries(tmp_path)
    assert sorted(path.name for path in (tmp_path / "features").iterdir()) == sorted(kept)
    unreaped.wait()
