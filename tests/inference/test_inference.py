"""A trained model in use, against the evaluation of the same clips from their prepared features."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import spoken
import tiny
import torch

import fairseq_neupronet
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.profile import Bank

NORMALIZED = {"profile_normalize": True, "profile_normalize_prior": 7.0}
MODELS = {
    "base": {"model": spoken.EFFICIENTNET},
    "profiles": {"profiling": True},
    "cnn_profiles": {"profiling": True, "model": spoken.EFFICIENTNET | {"pooling": "cosine", "head": "mlp"}},
    "per_clip": {"model": spoken.EFFICIENTNET, "normalize": True, "max_sample_size": 40},
    "cmvn": {"model": spoken.EFFICIENTNET, **NORMALIZED},
    "adaptive": {"model": spoken.EFFICIENTNET, "adaptive_batch_norm": 3.0},
    "adaptive_cmvn": {"model": spoken.EFFICIENTNET, "adaptive_batch_norm": 3.0, **NORMALIZED},
    "adaptive_profiles": {"profiling": True, "model": spoken.EFFICIENTNET, "adaptive_batch_norm": 3.0},
    "cmvn_profiles": {"profiling": True, **NORMALIZED},
    "alone": {"profiling": True, "model": {"grouping": "none"}, "protocol": "single"},
    "whole_split": {"profiling": True, "model": {"grouping": "whole_split", "auto_encoder": True}},
}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    return spoken.write_corpus(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="module")
def trained(sounds, tmp_path_factory):
    """By name: the task and network of training, and the same model as loaded from its checkpoint.

    Backbones compute in float64: an EfficientNet's float32 depends on how many clips share a pass, by some 1e-5 of its
    logits, which would hide small mistakes.
    """
    folder, known = tmp_path_factory.mktemp("trained"), {}

    def get(name: str):
        if name not in known:
            task, network, config = spoken.build(sounds / "data", **MODELS[name])
            path = spoken.save(folder / f"{name}.pt", task, network, config)
            spoken.compute_precisely(network)
            known[name] = task, network, path
        task, network, path = known[name]
        model = fairseq_neupronet.load(path)
        spoken.compute_precisely(model.network)
        return task, network, model

    return get


def logits_of(predictions) -> dict[str, np.ndarray]:
    assert all(len(prediction.times) == 1 for prediction in predictions)
    return {Path(prediction.path).stem: prediction.logits[0] for prediction in predictions}


def assert_same(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    assert np.ptp([*expected.values()], axis=0).max() > 1e-3  # clips differ
    for name, row in expected.items():
        np.testing.assert_allclose(found[name], row, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "per_clip"])
def test_without_a_profile_it_is_protocol_single(trained, sounds, name):
    task, network, model = trained(name)
    assert_same(logits_of(model.predict(spoken.files_of_test(sounds))), spoken.evaluate(task, network, "single"))


def test_clips_are_cut_and_normalised_as_in_evaluation(trained, sounds):
    """A window is as long as the model hears; evaluation hears the first one of a longer clip."""
    task, network, model = trained("per_clip")
    expected = spoken.evaluate(task, network, "single")
    windowed = {Path(each.path).stem: each for each in model.predict(spoken.files_of_test(sounds))}
    heard_whole = [name for name, each in windowed.items() if len(each.times) == 1]
    assert 2 < len(heard_whole) < len(windowed)
    for name in heard_whole:
        np.testing.assert_allclose(windowed[name].logits[0], expected[name], rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize(
    "name",
    [
        "profiles",
        "cnn_profiles",
        "cmvn",
        "cmvn_profiles",
        "whole_split",
        "adaptive",
        "adaptive_cmvn",
        "adaptive_profiles",
    ],
)
def test_with_all_clips_of_the_profile_it_is_protocol_full(trained, sounds, name):
    task, network, model = trained(name)
    expected = spoken.evaluate(task, network, "full")
    found = model.predict(spoken.files_of_test(sounds), spoken.profiles_of_test(sounds), together=True, batch_size=3)
    assert_same(logits_of(found), expected)
    alone = spoken.evaluate(task, network, "single")
    assert max(np.abs(alone[clip] - expected[clip]).max() for clip in alone) > 1e-4


@pytest.mark.parametrize("name", ["profiles", "cnn_profiles", "cmvn"])
def test_with_the_others_enrolled_it_is_protocol_full_too(trained, sounds, name):
    """The group is the clip and the enrolled ones: enrolled are the profile's other clips, in two goes."""
    task, network, model = trained(name)
    files, profiles = spoken.files_of_test(sounds), spoken.profiles_of_test(sounds)
    names = []
    for number, file in enumerate(files):
        others = [
            other
            for other, profile in zip(files, profiles, strict=True)
            if profile == profiles[number] and other != file
        ]
        for part in filter(None, (others[:1], others[1:])):
            model.enrol(f"others of {number}", part)
        names.append(f"others of {number}" if others else None)
    assert_same(logits_of(model.predict(files, names)), spoken.evaluate(task, network, "full"))


@pytest.mark.parametrize(
    "name", ["profiles", "cmvn", "cmvn_profiles", "adaptive", "adaptive_cmvn", "adaptive_profiles"]
)
def test_with_what_a_protocol_draws_enrolled_it_is_that_protocol(trained, sounds, name):
    task, network, model = trained(name)
    expected = spoken.evaluate(task, network, "enrol-2")
    dataset = task.dataset("test")
    offsets, members = dataset.pairs or dataset.grouping.enrolment
    files = {Path(file).stem: file for file in spoken.files_of_test(sounds)}
    clips = [files[Path(clip).stem] for clip in dataset.manifest.clips]
    names = []
    for number, file in enumerate(clips):
        others = [clips[other] for other in members[offsets[number] + 1 : offsets[number + 1]]]
        names.append(f"others of {file}"[-100:] if others else None)
        if others:
            model.enrol(names[-1], others)
    assert_same(logits_of(model.predict(clips, names)), expected)


def test_clips_enrolled_in_two_goes_count_as_often_as_there_are(trained, sounds):
    _, _, model = trained("adaptive")
    first, second, *_ = spoken.files_of_test(sounds)
    sums = []
    for name, parts in {"a": [[first]], "b": [[second]], "both": [[first], [second]]}.items():
        for part in parts:
            model.enrol(name, part)
        sums.append(model.bank[name].norms)
    np.testing.assert_allclose(sums[0] + sums[1], sums[2])
    assert [row[0] for row in sums] == [1, 1, 2]


@pytest.mark.parametrize(
    ("name", "prior", "said"),
    [
        ("base", -1, "is -1, a number of clips is wanted"),
        ("base", "1e400", "is '1e400', a number"),
        ("base", float("nan"), "is nan, a number"),
        ("profiles", 30.0, "its backbone has no batch norm"),
    ],
)
def test_a_file_that_asks_for_batch_norms_that_cannot_adapt_is_refused(trained, tmp_path, name, prior, said):
    _, _, model = trained(name)
    state = torch.load(model.checkpoint.path, weights_only=True)
    state["cfg"]["task"]["adaptive_batch_norm"] = prior
    torch.save(state, tmp_path / "changed.pt")
    with pytest.raises(InputError, match=said):
        fairseq_neupronet.load(tmp_path / "changed.pt")


def test_a_large_profile_is_enrolled_in_parts(trained):
    _, _, model = trained("adaptive")
    clips = np.random.default_rng(0).normal(size=(130, 6000)).astype(np.float32) * 0.1
    assert model.enrol("large", list(clips)) == 130
    assert model.bank["large"].norms[0] == 130 and np.isfinite(model.bank["large"].norms).all()


def test_a_file_of_another_rate_and_format_is_heard_alike(trained, sounds, tmp_path):
    _, _, model = trained("base")
    rng = np.random.default_rng(0)
    sound = spoken.sound(rng, 2, 0.5, 48000).astype(np.float32)
    soundfile.write(tmp_path / "a.flac", np.stack([sound, sound], axis=1), 48000, subtype="PCM_24")
    (of_file,), (of_array,) = model.predict(tmp_path / "a.flac"), model.predict(sound, sample_rate=48000)
    np.testing.assert_allclose(of_file.logits, of_array.logits, atol=1e-4)
    assert (of_file.path, of_array.path) == (str(tmp_path / "a.flac"), "array 0")


def test_a_long_file_is_heard_in_windows_as_if_each_were_a_file(trained, tmp_path):
    _, _, model = trained("base")
    rng = np.random.default_rng(1)
    long = np.concatenate([spoken.sound(rng, number, 0.5) for number in range(7)]).astype(np.float32)
    (heard,) = model.predict(long, window=0.5, batch_size=2)
    np.testing.assert_allclose(heard.times, [[0.5 * n, 0.5 * n + 0.5] for n in range(7)])
    apart = [model.predict(part)[0].logits[0] for part in np.split(long, 7)]
    np.testing.assert_allclose(heard.logits, apart, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(heard.probabilities, torch.tensor(heard.logits).softmax(1).mean(0), atol=1e-6)
    assert heard.label == model.classes[int(heard.probabilities.argmax())]


@pytest.mark.parametrize(
    ("seconds", "hop", "expected"),
    [
        (1.3, None, [(0, 0.5), (0.5, 1.0), (0.8, 1.3)]),
        (1.0, 0.25, [(0, 0.5), (0.25, 0.75), (0.5, 1.0)]),
        (0.5, None, [(0, 0.5)]),
        (0.3, None, [(0, 0.3)]),
        (20.1, None, [*((0.5 * n, 0.5 * n + 0.5) for n in range(40)), (19.6, 20.1)]),
    ],
)
def test_windows_reach_to_the_end_of_the_file(trained, seconds, hop, expected):
    _, _, model = trained("base")
    (heard,) = model.predict(np.zeros(round(seconds * spoken.RATE), np.float32), window=0.5, hop=hop)
    np.testing.assert_allclose(heard.times, expected)


def test_one_unreadable_file_does_not_keep_the_others(trained, sounds, tmp_path):
    _, _, model = trained("profiles")
    (tmp_path / "text.wav").write_text("not a sound")
    (tmp_path / "empty.wav").touch()
    good = spoken.files_of_test(sounds)[:2]
    outcomes = list(model.stream([good[0], tmp_path / "text.wav", tmp_path / "empty.wav", "gone.wav", good[1]]))
    assert [outcome.path for outcome in (outcomes[0], outcomes[4])] == good
    sentences = [outcome.sentence for outcome in outcomes[1:4]]
    for name, sentence in zip(("text.wav", "empty.wav", "gone.wav"), sentences, strict=True):
        assert name in sentence and "\n" not in sentence
    with pytest.raises(InputError, match="text.wav"):
        model.predict([good[0], tmp_path / "text.wav"])


def test_a_file_deleted_while_running_is_named(trained, sounds, tmp_path):
    _, _, model = trained("base")
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.wav")
        soundfile.write(files[-1], np.zeros(4000), spoken.RATE)
    outcomes = model.stream(files, batch_size=1)
    next(outcomes)
    files[2].unlink()
    assert "2.wav: no such audio file" in list(outcomes)[-1].sentence


def test_a_failed_file_joins_no_group(trained, sounds, tmp_path):
    """Its first windows were heard before the mistake came."""
    _, _, model = trained("profiles")
    spoilt = np.zeros(200_000, np.float32)
    spoilt[-1] = np.nan
    files = spoken.files_of_test(sounds)[:3]
    *good, bad = model.stream([*files, spoilt], ["p"] * 4, together=True)
    assert "array 3" in bad.sentence
    expected = model.predict(files, ["p"] * 3, together=True)
    for found, wanted in zip(good, expected, strict=True):
        np.testing.assert_array_equal(found.logits, wanted.logits)


# ---- the bank ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["profiles", "cmvn", "cmvn_profiles"])
def test_a_bank_is_kept_in_a_file(trained, sounds, tmp_path, name):
    _, _, model = trained(name)
    files = spoken.files_of_test(sounds)
    assert model.enrol("ann", files[:3]) == 3
    model.enrol("bob", files[3])
    model.save_bank(tmp_path / "bank.npz")
    expected = model.predict(files[5], "ann")[0].logits
    _, _, again = trained(name)
    again.load_bank(tmp_path / "bank.npz")
    assert again.bank.clips == {"ann": 3, "bob": 1}
    np.testing.assert_array_equal(again.predict(files[5], "ann")[0].logits, expected)
    assert np.abs(again.predict(files[5])[0].logits - expected).max() > 1e-5


@pytest.mark.parametrize("name", ["profiles", "adaptive_cmvn"])
def test_a_bank_of_the_version_before_is_read(trained, sounds, tmp_path, name):
    """It had the sums of mel bands and of batch norms in one row, which only its model can divide."""
    _, _, model = trained(name)
    files, path = spoken.files_of_test(sounds), tmp_path / "bank.npz"
    model.enrol("ann", files[:3])
    model.enrol("bob", files[3])
    expected = model.predict(files[5], "ann")[0].logits
    profiles = [model.bank["ann"], model.bank["bob"]]
    np.savez(
        path,
        format=np.array("neupronet profile bank 1"),
        model=np.array(model.digest),
        names=np.array(["ann", "bob"]),
        clips=np.array([3, 1]),
        embeddings=torch.cat([each.embeddings for each in profiles]).numpy(),
        band_sums=np.stack([np.concatenate([each.bands, each.norms]) for each in profiles]),
    )
    _, _, again = trained(name)
    again.load_bank(path)
    np.testing.assert_array_equal(again.predict(files[5], "ann")[0].logits, expected)
    without_model = Bank.load(path)  # as neupronet enrol --forget has it
    without_model.forget("bob")
    without_model.save(path)
    again.load_bank(path)
    assert again.bank.clips == {"ann": 3}
    np.testing.assert_array_equal(again.predict(files[5], "ann")[0].logits, expected)
    again.save_bank(path)
    assert np.load(path)["format"] == "neupronet profile bank 2"
    again.load_bank(path)
    np.testing.assert_array_equal(again.predict(files[5], "ann")[0].logits, expected)


def test_forgetting_removes_a_profile_from_the_file(trained, sounds, tmp_path):
    _, _, model = trained("profiles")
    files, path = spoken.files_of_test(sounds), tmp_path / "bank.npz"
    model.enrol("ann", files[:2])
    trace = model.bank["ann"].embeddings.numpy().tobytes()
    model.enrol("bob", files[2])
    model.save_bank(path)
    assert b"ann" in path.read_bytes().replace(b"\0", b"") and trace in path.read_bytes()
    model.forget("ann")
    model.save_bank(path)
    assert b"ann" not in path.read_bytes().replace(b"\0", b"") and trace not in path.read_bytes()
    assert Bank.load(path).clips == {"bob": 1}
    with pytest.raises(InputError, match="'ann' is not enrolled; known are: bob"):
        model.predict(files[0], "ann")


def test_a_bank_of_another_model_is_refused(trained, sounds, tmp_path):
    _, _, model = trained("profiles")
    model.enrol("ann", spoken.files_of_test(sounds)[0])
    model.save_bank(tmp_path / "bank.npz")
    _, _, other = trained("cnn_profiles")
    with pytest.raises(InputError, match="bank.npz: a profile bank of another model"):
        other.load_bank(tmp_path / "bank.npz")


def test_what_is_no_bank_is_refused(trained, tmp_path):
    _, _, model = trained("profiles")
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "other.npz", format="x")
    np.savez(
        tmp_path / "pickle.npz",
        **dict.fromkeys(("format", "model", "names", "clips", "embeddings", "bands", "norms"), np.array([{}], object)),
    )
    model.save_bank(tmp_path / "whole.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-300])
    model.load_bank(tmp_path / "whole.npz")
    for name in ("text.npz", "other.npz", "pickle.npz", "cut.npz", "gone.npz"):
        with pytest.raises(InputError, match=name):
            model.load_bank(tmp_path / name)


@pytest.mark.parametrize("name", ["base", "alone"])
def test_a_model_without_profiles_enrols_none(trained, sounds, name):
    _, _, model = trained(name)
    reason = "without profiles" if name == "base" else "grouping=none"
    with pytest.raises(InputError, match=reason):
        model.enrol("ann", spoken.files_of_test(sounds)[0])
    with pytest.raises(InputError, match=reason):
        model.predict(spoken.files_of_test(sounds)[0], "ann")


def test_nothing_is_enrolled_when_a_file_is_unreadable(trained, sounds):
    _, _, model = trained("profiles")
    with pytest.raises(InputError, match="gone.wav"):
        model.enrol("ann", [spoken.files_of_test(sounds)[0], "gone.wav"])
    assert model.bank.clips == {}
    for name in ("", " ", "a\nb", "x" * 201):
        with pytest.raises(InputError, match="give a name"):
            model.enrol(name, spoken.files_of_test(sounds)[0])


# ---- embeddings ----------------------------------------------------------------------------------------------------


def test_embeddings_are_the_networks_own(trained, sounds):
    task, network, model = trained("cnn_profiles")
    files = spoken.files_of_test(sounds)
    model.enrol("ann", files[:2])
    found = model.embed(files, "ann", batch_size=4)
    (batch,) = tiny.batches(task, "test", batch_size=len(files))
    with torch.no_grad():
        clip, profile = network.embed(batch["net_input"]["source"], batch["net_input"]["padding_mask"])
    order = batch["id"].argsort()
    np.testing.assert_allclose(found.clip, clip[order], atol=2e-5)
    np.testing.assert_allclose(found.profile, profile[order], atol=2e-5)
    with torch.no_grad():
        scores = network.pooling(
            clip[order],
            torch.cat([profile[order][3:4], profile[order][:2]]),
            torch.ones(len(files), 3, dtype=torch.bool),
        )[1][3]
        logits = network.head(torch.tensor(found.fused))
    np.testing.assert_allclose(found.pooled[3], scores, atol=2e-5)
    np.testing.assert_allclose(found.logits, logits, atol=2e-5)
    assert found.path.tolist() == files


# ---- checkpoints ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_of_a_real_training_loads(checkpoint):
    model = fairseq_neupronet.load(checkpoint)
    assert model.classes == list(tiny.CLASSES)
    assert (model.features.n_mels, model.features.kind, model.uses_profiles) == (tiny.N_MELS, "mel_db", True)
    (prediction,) = model.predict(np.zeros(1600, np.float32))
    assert prediction.probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["cnn_profiles", "profiles"])
def test_no_model_needs_fairseq(trained, name, sounds):
    _, _, model = trained(name)
    code = (
        "import sys, fairseq_neupronet as n; assert 'torch' not in sys.modules\n"
        f"m = n.load({str(model.checkpoint.path)!r}); m.predict({spoken.files_of_test(sounds)[0]!r})\n"
        "print([name for name in ('fairseq', 'hydra', 'torchvision', 'sklearn', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=tiny.environment())
    assert done.stdout.strip() == "[]", done.stderr


def test_a_checkpoint_that_lacks_its_recipe_wants_one(sounds, tmp_path):
    task, network, config = spoken.build(sounds / "data", **MODELS["base"])
    path = spoken.save(tmp_path / "old.pt", task, network, config, recipe=None)
    with pytest.raises(InputError, match="does not say how its features were computed.*--recipe"):
        fairseq_neupronet.load(path)
    given = fairseq_neupronet.load(path, recipe=sounds / "data" / "features" / "recipe.yaml")
    whole = fairseq_neupronet.load(spoken.save(tmp_path / "new.pt", task, network, config))
    assert given.features == whole.features and given.digest == whole.digest
    with pytest.raises(InputError, match="leave the recipe out"):
        fairseq_neupronet.load(tmp_path / "new.pt", recipe="kaldi_fbank")


def test_a_converted_checkpoint_wants_its_data(sounds, tmp_path):
    task, network, config = spoken.build(sounds / "data", **MODELS["base"])
    whole = fairseq_neupronet.load(spoken.save(tmp_path / "whole.pt", task, network, config))
    unknown = dict.fromkeys(("classes", "fixed_frames", "recipe"))
    path = spoken.save(tmp_path / "converted.pt", task, network, config, **unknown)
    with pytest.raises(InputError, match="knows no class names.*--data"):
        fairseq_neupronet.load(path)
    completed = fairseq_neupronet.load(path, data=sounds / "data")
    assert completed.digest == whole.digest and completed.classes == whole.classes


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda state: state["cfg"]["model"].update(_name="spectrogram_wav2vec2"), "knows no classes"),
        (lambda state: state["cfg"]["model"].update(_name="CNN_NPN"), "neupronet convert"),
        (lambda state: state["cfg"]["model"].update(decoder_embed_dim=32), "do not fit"),
        (lambda state: state["cfg"]["model"].update(backbone="no_such_net"), "no_such_net"),
        (lambda state: state.pop("cfg"), "no configuration"),
        (lambda state: state["task_state"].update(classes=["a"]), "3 classes"),
        (lambda state: state["cfg"]["task"].update(profile_normalize=True), "statistics"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_explained(sounds, tmp_path, spoil, words):
    task, network, config = spoken.build(sounds / "data", **MODELS["base"])
    path = spoken.save(tmp_path / "model.pt", task, network, config)
    state = torch.load(path, weights_only=True)
    spoil(state)
    torch.save(state, path)
    with pytest.raises(InputError, match=words):
        fairseq_neupronet.load(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    for name in ("text.pt", "gone.pt"):
        with pytest.raises(InputError, match=name):
            fairseq_neupronet.load(tmp_path / name)


@pytest.mark.parametrize("options", [{"window": 0.0}, {"window": 9.0}, {"hop": 0.0}, {"hop": 9.0}])
def test_windows_that_make_no_sense_are_refused(trained, options):
    _, _, model = trained("base")
    with pytest.raises(InputError, match=next(iter(options))):
        model.predict(np.zeros(1600, np.float32), **options)
