"""Fixtures that tests share; sizes and helpers are in tiny.py."""

import shutil

import numpy as np
import pytest
import small_benchmark
import tiny
import torch

from fairseq_neupronet.data.manifest import read_manifest


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A tiny prepared folder that no test may change."""
    return tiny.write_corpus(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="session")
def small_folds(tmp_path_factory):
    """Three prepared folds for a benchmark, that no test may change."""
    return small_benchmark.write_folds(tmp_path_factory.mktemp("folds"))


@pytest.fixture
def small_config(tmp_path, small_folds):
    """A benchmark of them."""
    return small_benchmark.write_config(tmp_path / "small.yaml", small_folds)


@pytest.fixture
def own_corpus(tmp_path):
    """The same, for a test to spoil."""
    return tiny.write_corpus(tmp_path / "data")


@pytest.fixture
def ten_clips(tmp_path):
    """Ten clips of known lengths; clip i is filled with i + 1 and its frame number / 100."""
    folder = tmp_path / "ten"
    (folder / "features").mkdir(parents=True)
    for number, frames in enumerate(tiny.LENGTHS):
        clip = np.full((8, frames), number + 1.0, np.float32) + np.arange(frames, dtype=np.float32) / 100
        np.save(folder / "features" / f"{number}.npy", clip)
    clips = [(f"{number}.npy", frames, f"p{number % 3}") for number, frames in enumerate(tiny.LENGTHS)]
    tiny.write_split(folder, "train", clips, ["cough"] * 10)
    return read_manifest(folder / "train.tsv", profiling=True)


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A working directory: data, and a model trained from a pretrained extractor whose file is put aside since."""
    folder = tmp_path_factory.mktemp("place")
    tiny.write_corpus(folder / "data")
    pretraining = tiny.train("pretraining", "vocalsound", "task.data=data", "hydra.run.dir=pretrained", cwd=folder)
    assert pretraining.returncode == 0, pretraining.stderr
    finetuning = tiny.train("finetuning", "vocalsound", *tiny.FROM_EXTRACTOR, cwd=folder)
    assert finetuning.returncode == 0, finetuning.stderr
    (folder / "log.txt").write_text(finetuning.stdout, encoding="utf-8")
    (folder / "pretrained" / "checkpoints" / "checkpoint_last.pt").rename(folder / "put_aside.pt")
    shutil.rmtree(folder / "pretrained")
    return folder


@pytest.fixture(scope="session")
def run_folder(place):
    (folder,) = (place / "outputs" / "vocalsound").iterdir()
    return folder


@pytest.fixture(scope="session")
def checkpoint(run_folder):
    return run_folder / "checkpoints" / "checkpoint_best.pt"
