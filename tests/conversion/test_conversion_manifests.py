"""Official manifests and label files as they are: roots absolute or relative, three columns or four."""

import numpy as np
import official_checkpoints as fakes
import pytest
import tiny
from test_conversion import converted

from fairseq_neupronet.data.manifest import read_manifest

# Sources of the clips, which the official name rule and the fourth column both give.
SOURCES = ("7061-6-0", "24074-1-0", "99-3-2")
LABELS = ("siren", "drilling", "siren")
LAYOUTS = [(root, columns) for root in ("relative", "absolute") for columns in (3, 4)]


def official_folder(folder, root: str, columns: int, n_mels: int = 8):
    """Nine clips as the official preparation names and lists them."""
    rng = np.random.default_rng(0)
    (folder / "data" / "npy" / "fold1").mkdir(parents=True)
    rows = []
    for number in range(9):
        source = SOURCES[number % 3]
        name = f"fold1/{source}_mel_2048_128.npy" if number < 3 else f"fold{number}/{source}_mel_2048_128.npy"
        frames = int(rng.integers(40, 60))
        path = folder / "data" / "npy" / name
        path.parent.mkdir(exist_ok=True)
        np.save(path, rng.random((n_mels, frames)).astype(np.float32) * 255)
        rows.append([name, str(n_mels), str(frames), source][:columns])
    first = "npy" if root == "relative" else str(folder / "data" / "npy")
    for split in ("train", "test"):
        text = "\n".join([first, *("\t".join(row) for row in rows)]) + "\n"
        (folder / "data" / f"{split}.tsv").write_text(text)
        (folder / "data" / f"{split}.label").write_text("".join(f"{LABELS[row % 3]}\n" for row in range(9)))
    (folder / "data" / "dict.label.txt").write_text("siren 6\ndrilling 3\n")
    return folder / "data"


@pytest.mark.parametrize(("root", "columns"), LAYOUTS)
def test_every_layout_gives_the_same_clips_and_profiles(tmp_path, root, columns):
    folder = official_folder(tmp_path, root, columns)
    manifest = read_manifest(folder / "train.tsv", profiling=True)
    assert len(manifest) == 9
    names = [manifest.profile_names[code] for code in manifest.profiles]
    assert names == [SOURCES[number % 3] for number in range(9)]
    assert (manifest.root / manifest.clips[4]).samefile(folder / "npy" / "fold4" / "24074-1-0_mel_2048_128.npy")


@pytest.mark.parametrize(("root", "columns"), LAYOUTS)
def test_every_layout_makes_the_same_batches(tmp_path, root, columns):
    folder = official_folder(tmp_path, root, columns)
    task = tiny.build_task(folder, profiling=True, padding="batch")
    (batch,) = tiny.batches(task, "test", batch_size=16)
    by_number = batch["id"].argsort()
    profile = batch["net_input"]["profile"][by_number]
    assert [len(set(profile[first::3].tolist())) for first in range(3)] == [1, 1, 1]
    assert len(set(profile.tolist())) == 3
    # The class index is the line of the dictionary, which official code has as dictionary index minus 4.
    assert batch["target"][by_number].tolist() == [0, 1, 0] * 3
    assert sorted(batch["id"].tolist()) == list(range(9))


def test_a_converted_checkpoint_predicts_the_same_on_every_layout(tmp_path):
    state = fakes.classifier()
    state["model"] |= {name: state["model"][name][:2].clone() for name in ("decoder.0.weight", "decoder.0.bias")}
    state["cfg"]["model"]["clf_output_dim"] = 2
    state["cfg"]["criterion"]["class_weights"] = [1.0, 1.0]
    state["last_optimizer_state"] = None
    converted(state, tmp_path)
    predictions = []
    for root, columns in LAYOUTS:
        place = tmp_path / f"{root}{columns}"
        folder = official_folder(place, root, columns, n_mels=128)
        tiny.fairseq_validate(tmp_path / "out.pt", folder, "--results-path", place / "results")
        predictions.append((place / "results" / "predictions.tsv").read_text())
    assert len(predictions[0].splitlines()) == 10
    assert len(set(predictions)) == 1
