"""Numbers at the edge: NaN names its clips, and sound of every odd kind trains and evaluates, or gets one sentence."""

import math

import numpy as np
import pytest
import soundfile
import tiny
import torch
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from fairseq.logging import metrics
from fairseq.trainer import Trainer
from omegaconf import OmegaConf, open_dict

from fairseq_neupronet.audio.features import extract_features
from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.cli import main
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.trainer import non_finite
from fairseq_neupronet.trainer.patches import _check_grad_norms, patch_fairseq


def trainer_of(data, task_name="spectrogram_finetuning", **changes):
    """fairseq's trainer on a prepared folder, with the tiny networks."""
    config = OmegaConf.create(FairseqConfig())
    pretraining = task_name == "spectrogram_pretraining"
    with open_dict(config):
        config.task = {"_name": task_name, "data": str(data), "profiling": not pretraining}
        config.model = (
            {"_name": "spectrogram_wav2vec2"} | tiny.TRANSFORMER
            if pretraining
            else ({"_name": "NeuProNet"} | tiny.MODEL)
        )
        config.criterion = {"_name": "wav2vec", "infonce": True} if pretraining else {"_name": "NeuProNet"}
        config.optimizer = {"_name": "adam", "adam_betas": "(0.9, 0.98)"}
        config.lr_scheduler = {"_name": "fixed"}
        config.common.cpu = True
        for name, value in changes.items():
            section, _, key = name.partition("__")
            config[section][key] = value
    add_defaults(config)
    task = tiny.build_task(data, task_name, profiling=not pretraining)
    task.load_dataset("train")
    model, criterion = task.build_model(config.model), task.build_criterion(config.criterion)
    return Trainer(config, task, model, criterion)


@pytest.fixture
def _patched(monkeypatch):
    """As in a training, whose command the process has imported."""
    patch_fairseq()
    from fairseq_neupronet.trainer import patches as fairseq_patches

    if "_check_grad_norms" not in fairseq_patches._originals:
        monkeypatch.setitem(fairseq_patches._originals, "_check_grad_norms", Trainer._check_grad_norms)
        monkeypatch.setattr(Trainer, "_check_grad_norms", _check_grad_norms)


def steps(trainer, n_steps: int = 2, batch_size: int = 6) -> None:
    iterator = trainer.task.get_batch_iterator(trainer.task.dataset("train"), max_sentences=batch_size, seed=1)
    batches = list(iterator.next_epoch_itr(shuffle=False))
    trainer.lr_step_begin_epoch(1)
    with metrics.aggregate(new_root=True):
        for batch in (batches * n_steps)[:n_steps]:
            trainer.train_step([batch])


def spoil(data, name: str) -> None:
    """Values that single precision holds, and whose sums it does not."""
    clip = np.load(data / "features" / name)
    np.save(data / "features" / name, np.full_like(clip, 3e38))


@pytest.mark.usefixtures("_patched")
@pytest.mark.parametrize("task", ["spectrogram_finetuning", "spectrogram_pretraining"])
def test_a_clip_that_makes_the_loss_nan_is_named(tmp_path, monkeypatch, task):
    monkeypatch.chdir(tmp_path)
    data = tiny.write_corpus(tmp_path / "data", clips={"train": 6, "valid": 3})
    spoil(data, "train4.npy")
    trainer = trainer_of(data, task)
    with pytest.raises(InputError) as raised:
        steps(trainer)
    sentence = str(raised.value)
    assert sentence.startswith("update 1: the loss or its gradient is NaN or infinite because of ")
    assert "train.tsv:6 (train4.npy); prepare these clips again" in sentence
    assert "train3.npy" not in sentence
    assert not list(tmp_path.rglob("*.pt"))
    assert all(bool(parameter.isfinite().all()) for parameter in trainer.model.parameters())


@pytest.mark.usefixtures("_patched")
def test_weights_that_have_diverged_are_told_from_bad_clips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tiny.write_corpus(tmp_path / "data", clips={"train": 12, "valid": 3})
    trainer = trainer_of(data)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.fill_(math.nan)
    with pytest.raises(InputError, match=r"in a batch of 12 clips, each of which.*and 2 more; the training has diverg"):
        steps(trainer, batch_size=12)


@pytest.mark.usefixtures("_patched")
def test_a_loss_that_is_infinite_with_a_gradient_that_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tiny.write_corpus(tmp_path / "data", clips={"train": 6, "valid": 3})
    trainer = trainer_of(data)
    steps(trainer, 1)
    trainer.task.update.losses = [torch.tensor(math.inf)]
    with pytest.raises(InputError, match=r"update 2: .*none of which is so alone: .*train\.tsv:"):
        non_finite.check(trainer, torch.tensor(1.0))


def test_what_fairseq_itself_stops_with_names_the_batch(tmp_path):
    data = tiny.write_corpus(tmp_path / "data", clips={"train": 6, "valid": 3})
    trainer = trainer_of(data)
    steps(trainer, 1)
    error = non_finite.stopped_by(FloatingPointError("Minimum loss scale reached (0.0001).\nTry"), trainer)
    assert str(error).startswith("update 2: Minimum loss scale reached (0.0001). Its batch is ")
    assert "train5.npy" in str(error)


@pytest.mark.usefixtures("_patched")
def test_bfloat16_weights_train(tmp_path):
    data = tiny.write_corpus(tmp_path / "data", clips={"train": 6, "valid": 3})
    trainer = trainer_of(data, common__bf16=True)
    steps(trainer, 3)
    assert trainer.get_num_updates() == 3
    assert next(trainer.model.parameters()).dtype == torch.bfloat16


# ---- odd sound -----------------------------------------------------------------------------------------------------

RATE = 16000


def odd_sounds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, RATE // 2)
    return {
        "silence": np.zeros(RATE // 2),
        "clipped": np.sign(noise),
        "direct": np.full(RATE // 2, 0.5),
        "one_sample": noise[:1],
        "one_frame": noise[:100],
        "click": np.eye(1, RATE // 2).ravel(),
        "noise": noise,
    }


@pytest.mark.parametrize("recipe", ["official", "kaldi_fbank"])
@pytest.mark.parametrize("sound", odd_sounds())
def test_odd_sound_has_finite_features(recipe, sound):
    recipe = FeatureRecipe.load(recipe, sample_rate=RATE)
    features = extract_features(torch.from_numpy(odd_sounds()[sound]), recipe)
    assert features.shape[0] == recipe.n_mels
    assert features.shape[1] >= 1
    assert np.isfinite(features).all()


def train_and_validate(data, profiling: bool = True, batch_size: int = 8, **options) -> dict:
    """Two updates of each of two batches, then every figure of validation."""
    task = tiny.build_task(data, profiling=profiling, **options)
    model, criterion = tiny.build_model(task), tiny.build_criterion(task)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.train()
    criterion.train()
    for batch in tiny.batches(task, "train", batch_size)[:2]:
        optimizer.zero_grad()
        loss, size, _ = criterion(model, batch)
        (loss / size).backward()
        assert math.isfinite(float(loss))
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        optimizer.step()
    figures = tiny.validate(task, model, criterion, "valid", batch_size)
    assert math.isfinite(figures["loss"])
    assert 0 <= figures["accuracy"] <= 1
    return figures


def test_odd_sound_is_prepared_trained_on_and_evaluated(tmp_path):
    lines = ["path,label,profile,split"]
    for number, (name, samples) in enumerate(odd_sounds().items()):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
        lines += [f"{name}.wav,{'ab'[number % 2]},p{number % 3},train"]
        soundfile.write(tmp_path / f"{name}2.wav", samples, RATE)
        lines += [f"{name}2.wav,{'ab'[number % 2]},p{number % 3},valid"]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")
    options = ["--sample-rate", str(RATE), "--n-mels", "8", "--n-fft", "512", "--hop-length", "160", "--workers", "1"]
    out = tmp_path / "data"
    assert main(["prepare", "table", "--metadata", str(tmp_path / "clips.csv"), "--out", str(out), *options]) == 0
    for padding in ("fixed", "batch"):
        for normalize in (False, True):
            train_and_validate(out, padding=padding, normalize=normalize)
    train_and_validate(out, profile_normalize=True)


def write(folder, clips, labels, profiles, frames=(4, 12), classes=tiny.CLASSES):
    """A folder whose splits have the given labels and profiles."""
    rng = np.random.default_rng(0)
    (folder / "features").mkdir(parents=True)
    for split, n_clips in clips.items():
        rows = []
        for number in range(n_clips):
            n_frames = int(rng.integers(*frames, endpoint=True))
            np.save(folder / "features" / f"{split}{number}.npy", rng.normal(size=(8, n_frames)).astype(np.float32))
            rows.append((f"{split}{number}.npy", n_frames, profiles(number)))
        tiny.write_split(folder, split, rows, [labels(number) for number in range(n_clips)])
    tiny.write_dictionary(folder, classes)
    tiny.write_recipe(folder)
    return folder


def one_class(folder):
    return write(folder, {"train": 9, "valid": 5}, lambda n: "cough", lambda n: f"p{n % 2}", classes=("cough",))


def one_profile(folder):
    return write(folder, {"train": 9, "valid": 5}, lambda n: tiny.CLASSES[n % 3], lambda n: "p")


def one_frame(folder):
    return write(folder, {"train": 9, "valid": 5}, lambda n: tiny.CLASSES[n % 3], lambda n: f"p{n % 2}", frames=(1, 1))


def a_class_nobody_has(folder):
    return write(folder, {"train": 9, "valid": 5}, lambda n: tiny.CLASSES[n % 2], lambda n: f"p{n % 2}")


def one_clip(folder):
    return write(folder, {"train": 1, "valid": 1}, lambda n: "cough", lambda n: "p")


@pytest.mark.parametrize("make", [one_class, one_profile, one_frame, a_class_nobody_has, one_clip])
@pytest.mark.parametrize("protocol", ["single", "full", "enrol-2", "batch-4"])
def test_odd_data_trains_and_evaluates(tmp_path, make, protocol):
    train_and_validate(make(tmp_path / "data"), protocol=protocol)


def test_ten_thousand_profiles(tmp_path):
    """A profile a clip; all rows name one file, of which the disk has one."""
    data = write(tmp_path / "data", {"train": 4, "valid": 4}, lambda n: "cough", lambda n: "p", frames=(6, 6))
    for split, n_clips in (("train", 10_000), ("valid", 600)):
        rows = [(f"{split}0.npy", 6, f"p{number}") for number in range(n_clips)]
        tiny.write_split(data, split, rows, [tiny.CLASSES[number % 3] for number in range(n_clips)])
    train_and_validate(data, batch_size=512)


def test_an_empty_validation_set_gets_one_sentence(tmp_path):
    data = one_profile(tmp_path / "data")
    (data / "valid.tsv").write_text("features\n")
    with pytest.raises(InputError, match=r"valid\.tsv: the manifest has a folder line and no clip"):
        train_and_validate(data)


@pytest.mark.slow
def test_clips_of_ten_minutes(tmp_path):
    """60,000 frames at a hop of 10 ms, cut in training and heard whole in evaluation."""
    data = write(tmp_path / "data", {"train": 3, "valid": 2}, lambda n: "cough", lambda n: "p", frames=(60_000, 60_000))
    train_and_validate(data, batch_size=2, max_sample_size=1000)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 600 * RATE)
    soundfile.write(tmp_path / "long.wav", samples, RATE)
    from fairseq_neupronet.audio.decode import load_audio

    recipe = FeatureRecipe.load("official", sample_rate=RATE)
    features = extract_features(load_audio(tmp_path / "long.wav", RATE), recipe)
    assert features.shape == (128, 600 * RATE // 512 + 1)
