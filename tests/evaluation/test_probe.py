"""``neupronet probe``: its figures against scikit-learn written out, what it says of groups, its file and refusals."""

import json

import numpy as np
import pytest
import tiny
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.clip_statistics import Clips, statistics_of_clip
from fairseq_neupronet.evaluation.floor import floor
from fairseq_neupronet.evaluation.probe import probe
from fairseq_neupronet.profiles.protocols import Protocol

PROFILES = {"train": 12, "valid": 6, "test": 10}
CLASSES = ("cough", "laugh")
PER_CLASS = 4


def write(folder, offset=0.0, one_class=False, splits=PROFILES, profiles=True, signal=1.0, seed=0):
    """A prepared folder in which the class shifts band 0, and the profile shifts all bands by ``offset``."""
    rng, number = np.random.default_rng(seed), 0
    (folder / "features").mkdir(parents=True)
    for split, n_profiles in splits.items():
        rows, labels = [], []
        for _ in range(n_profiles):
            number += 1
            level = offset * rng.normal(size=(tiny.N_MELS, 1))
            for clip in range(PER_CLASS * 2):
                label = number % 2 if one_class else clip % 2
                spectrogram = rng.normal(size=(tiny.N_MELS, 25)) + level
                spectrogram[0] += signal * label
                name = f"{number}_{clip}.npy"
                np.save(folder / "features" / name, spectrogram.astype(np.float32))
                rows.append((name, 25, f"p{number}" if profiles else ""))
                labels.append(CLASSES[label])
        tiny.write_split(folder, split, rows, labels)
    tiny.write_dictionary(folder, CLASSES)
    return folder


def read(folder, split):
    """Statistics, labels and profiles, with the statistics written out anew."""
    lines = (folder / f"{split}.tsv").read_text().splitlines()[1:]
    labels = [CLASSES.index(label) for label in (folder / f"{split}.label").read_text().split()]
    rows = []
    for line in lines:
        clip = np.load(folder / "features" / line.split("\t")[0]).astype(float)
        mean, deviation = clip.mean(axis=1), clip.std(axis=1)
        row = [*mean, *deviation]
        for part in range(10):
            piece = clip[:, part * 25 // 10 : (part + 1) * 25 // 10].mean(axis=1)
            row += [*((piece - mean) / (deviation + 0.1 * clip.std() + 1e-6))]
        rows.append(row)
    return np.array(rows), np.array(labels), np.array([line.split("\t")[3] for line in lines])


def by_hand(folder, centre):
    """Accuracy on test of the best of three regularisations on valid."""
    data = {}
    for split in PROFILES:
        x, y, profile = read(folder, split)
        if centre:
            x = np.array([row - x[profile == own].mean(axis=0) for row, own in zip(x, profile, strict=True)])
        data[split] = x, y
    scaler = StandardScaler().fit(data["train"][0])
    found = []
    for strength in (0.003, 0.01, 0.03):
        model = LogisticRegression(C=strength, max_iter=2000, tol=1e-6).fit(
            scaler.transform(data["train"][0]), data["train"][1]
        )
        scores = [model.score(scaler.transform(data[split][0]), data[split][1]) for split in ("valid", "test")]
        found.append(scores)
    return max(found, key=lambda scores: scores[0])[1]


def test_figures_are_those_of_scikit_learn_written_out(tmp_path):
    data = write(tmp_path / "data", offset=1.0)
    kept, _ = probe(data, ["single", "full"])
    # One clip of 80: the solver stops at another tolerance.
    assert kept["protocols"]["single"]["accuracy"] == pytest.approx(by_hand(data, False), abs=0.013)
    assert kept["protocols"]["full"]["accuracy"] == pytest.approx(by_hand(data, True), abs=0.013)
    assert kept["chance"] == {"accuracy": 0.5, "balanced_accuracy": 0.5}


def test_a_profile_that_shifts_its_clips_is_worth_something_by_its_sound(tmp_path):
    kept, lines = probe(write(tmp_path / "data", offset=2.0), ["single", "enrol-3", "full"])
    gains = kept["differences"]["full"]
    assert gains["single"]["low"] > 0 and gains["dealt_anew"]["low"] > 0
    assert "its sound is why" in lines[-1] and f"{100 * gains['single']['difference']:.1f} points" in lines[-1]
    assert kept["protocols"]["enrol-3"]["accuracy"] > kept["protocols"]["single"]["accuracy"]


def test_a_profile_without_a_sound_of_its_own_is_not_shown_to_be_worth_anything(tmp_path):
    kept, lines = probe(write(tmp_path / "data", signal=0.4), ["single", "full"])
    assert kept["differences"]["full"]["dealt_anew"]["low"] <= 0
    assert "not shown to be worth anything" in lines[-1]


def test_centring_by_groups_of_one_class_removes_the_class(tmp_path):
    kept, lines = probe(write(tmp_path / "data", one_class=True, signal=3.0), ["single", "full"])
    assert kept["protocols"]["single"]["accuracy"] > 0.8
    assert kept["protocols"]["full"]["accuracy"] == pytest.approx(kept["chance"]["accuracy"], abs=0.1)
    assert "harmful" in lines[-1] and "100% of the clips are in groups of one class" in lines[-1]


@pytest.mark.parametrize("splits", [{"train": 12}, {"train": 12, "valid": 6}])
def test_where_splits_are_missing_profiles_are_held_out_in_folds(tmp_path, splits):
    data = write(tmp_path / "data", offset=1.5, splits=splits)
    kept, lines = probe(data, ["single", "full"])
    subset = [*splits][-1]
    assert lines[0].startswith(f"on {subset}: {splits[subset] * PER_CLASS * 2} clips of {splits[subset]} profiles")
    assert kept["protocols"]["full"]["accuracy"] > kept["protocols"]["single"]["accuracy"]
    assert floor(data, "full", subset).accuracy == kept["protocols"]["full"]["accuracy"]


def test_without_profiles_only_single_is_measured_and_that_is_said(tmp_path):
    kept, lines = probe(write(tmp_path / "data", profiles=False), ["single", "full"])
    assert [*kept["protocols"]] == ["single"]
    assert "only single is measured" in "\n".join(lines) and "no groups" in lines[-1]


def test_a_profile_in_two_splits_is_named(tmp_path):
    data = write(tmp_path / "data")
    path = data / "test.tsv"
    path.write_text(path.read_text().replace("\tp19\n", "\tp3\n"))
    assert "profile p3 is in more than one split" in "\n".join(probe(data, ["single"])[1])


def test_the_command_keeps_its_figures_with_the_data_until_the_manifests_change(tmp_path, capsys):
    data = write(tmp_path / "data", offset=1.0)
    assert floor(data, "single") is None
    assert main(["probe", str(data), "--protocol", "single,full", "--seed", "2"]) == 0
    printed = capsys.readouterr().out
    found = floor(data, "full")
    assert found.low <= found.accuracy <= found.high
    assert f"full                  {found.accuracy:>9.4f}  {found.low:.4f} {found.high:.4f}" in printed
    assert floor(data, "enrol-1") is None and floor(data, "full", "valid") is None
    assert main(["probe", str(data), "--protocol", "single", "--subset", "valid"]) == 0
    assert floor(data, "full") == found and floor(data, "single", "valid") is not None
    labels = (data / "test.label").read_text().splitlines()
    (data / "test.label").write_text("\n".join(labels[::-1]) + "\n")
    with pytest.raises(InputError, match="other manifests or labels than are there now; run neupronet probe"):
        floor(data, "full")
    assert main(["probe", str(data), "--protocol", "single,full"]) == 0
    assert floor(data, "full").accuracy != found.accuracy


@pytest.mark.parametrize("content", ["{", "[]", '{"test": 1}', '{"test": {"splits": [], "digest": ""}}'])
def test_a_damaged_file_of_figures_is_one_sentence(tmp_path, content):
    data = write(tmp_path / "data")
    (data / "probe.json").write_text(content)
    with pytest.raises(InputError, match="probe.json: is damaged; run neupronet probe"):
        floor(data, "single")
    probe(data, ["single"])
    assert json.loads((data / "probe.json").read_text())["test"]["clips"] == 80


@pytest.mark.parametrize(
    ("spoil", "options", "words"),
    [
        (lambda data: (data / "train.tsv").unlink(), [], "holds no train.tsv"),
        (
            lambda data: (data / "train.label").write_text("cough\n" * PROFILES["train"] * PER_CLASS * 2),
            [],
            "all training clips are of one class",
        ),
        (lambda data: None, ["--protocol", "batch"], "a probe makes no batches"),
        (lambda data: None, ["--protocol", "some"], "Unknown protocol 'some'"),
        (lambda data: None, ["--subset", "other"], "other.tsv: no such manifest"),
        (lambda data: None, ["--seed", "-1"], "--seed -1"),
    ],
)
def test_what_cannot_be_probed_is_one_sentence(tmp_path, capsys, spoil, options, words):
    data = write(tmp_path / "data")
    spoil(data)
    assert main(["probe", str(data), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("neupronet: error: ") and words in line
    assert not (data / "probe.json").exists()


def test_a_clip_of_few_frames_has_all_its_parts():
    clip = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    found = statistics_of_clip(clip)
    assert found.shape == (36,) and np.isfinite(found).all()
    np.testing.assert_allclose(found[:3], clip.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(statistics_of_clip(clip + 5)[3:], found[3:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("protocol", ["full", "enrol-3"])
def test_a_clip_without_others_is_centred_by_what_is_given_and_others_by_their_group(protocol):
    statistics = np.random.default_rng(1).normal(size=(5, 4))
    profile = np.array([3, 7, 3, 7, 9])
    clips = Clips(statistics, np.zeros(5, int), profile, np.full(5, "test"), np.arange(5, dtype=np.uint64), None)
    alone = np.arange(4.0)
    found = clips.centred(Protocol.parse(protocol), 1, alone)
    for row in range(5):
        group = statistics[profile == profile[row]]
        mean = group.mean(axis=0) if len(group) > 1 else alone
        np.testing.assert_allclose(found[row], statistics[row] - mean, rtol=0, atol=1e-12)
