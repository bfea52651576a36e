"""A corpus and networks so small that a test trains them in a moment: the one place for small settings."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from fairseq import criterions, tasks
from fairseq.logging import metrics
from fairseq_cli import validate as validate_command
from omegaconf import OmegaConf, open_dict

import fairseq_neupronet.tasks  # noqa: F401 (registers the plugin)
from fairseq_neupronet.data.dataset import DatasetOptions, SpectrogramDataset
from fairseq_neupronet.data.manifest import Manifest

ROOT = Path(__file__).parents[2]
N_MELS = 8
CLASSES = ("cough", "laugh", "sniff")
PROFILES = ("p0", "p1", "p2", "p3", "p4", "p5")
FRAMES = (20, 60)  # shortest, longest
LENGTHS = [20, 41, 33, 20, 60, 55, 33, 20, 47, 38]  # of the ten clips of a fixture
CLIPS = {"train": 36, "valid": 18, "test": 22}
TRANSFORMER = {
    "conv_feature_layers": "[(16,3,1,2),(16,3,1,2)]",
    "encoder_layers": 1,
    "encoder_embed_dim": 16,
    "encoder_layerdrop": 0.0,  # a layer that is left out has no gradient
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 2,
    "conv_pos": 8,
    "conv_pos_groups": 2,
    "final_dim": 8,
    "mask_prob": 0.3,
    "mask_length": 2,
    "num_negatives": 2,
    "cross_sample_negatives": 4,
    "latent_vars": 4,
}
MODEL = {"decoder_embed_dim": 16, "transformer": TRANSFORMER, "profile_extractor": TRANSFORMER}
RECIPE = {
    "name": "tiny",
    "kind": "mel_db",
    "sample_rate": 16000,
    "hop_length": 160,
    "n_mels": N_MELS,
    "n_fft": 400,
    "top_db": 80.0,
    "scale": 255.0,
}


def spectrogram(rng: np.random.Generator, label: int, profile: int, n_mels: int, n_frames: int) -> np.ndarray:
    """Noise, a band a class and a tilt a profile. (M, F) float32."""
    clip = rng.normal(size=(n_mels, n_frames))
    clip[label * 2 : label * 2 + 2] += 2.0
    clip += 0.2 * profile * np.linspace(-1, 1, n_mels)[:, None]
    return clip.astype(np.float32)


def write_split(folder: Path, split: str, clips: list[tuple[str, int, str]], labels: list[str], root="features"):
    """A manifest of (path, frames, profile) and its label file."""
    rows = [f"{path}\t{N_MELS}\t{frames}\t{profile}" for path, frames, profile in clips]
    (folder / f"{split}.tsv").write_text("\n".join([str(root), *rows]) + "\n", encoding="utf-8")
    (folder / f"{split}.label").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")


def write_corpus(folder: Path, seed: int = 0, clips: dict[str, int] = CLIPS, frames=FRAMES, classes=CLASSES) -> Path:
    """A prepared folder with relative features, four columns and a recipe; lengths, classes and profiles are mixed."""
    rng = np.random.default_rng(seed)
    (folder / "features").mkdir(parents=True)
    for split, n_clips in clips.items():
        rows, labels = [], []
        for number in range(n_clips):
            label, profile = number % len(classes), int(rng.integers(len(PROFILES)))
            n_frames = int(rng.integers(frames[0], frames[1] + 1))
            if number == 0 and split == "train":
                n_frames = frames[1]
            name = f"{split}{number}.npy"
            np.save(folder / "features" / name, spectrogram(rng, label, profile, N_MELS, n_frames))
            rows.append((name, n_frames, PROFILES[profile]))
            labels.append(classes[label])
        write_split(folder, split, rows, labels)
    write_dictionary(folder, classes)
    write_recipe(folder)
    return folder


def write_dictionary(folder: Path, classes) -> None:
    (folder / "dict.label.txt").write_text("".join(f"{name} 1\n" for name in classes), encoding="utf-8")


def write_recipe(folder: Path, **changes) -> None:
    lines = [f"{name}: {value}\n" for name, value in (RECIPE | changes).items()]
    (folder / "features" / "recipe.yaml").write_text("".join(lines), encoding="utf-8")


def build_task(data: Path, name: str = "spectrogram_finetuning", **options):
    return tasks.setup_task(OmegaConf.create({"_name": name, "data": str(data), "seed": 1} | options))


def build_model(task, **options):
    """A NeuProNet of the tiny size; mappings among the options are merged into the tiny ones."""
    config = OmegaConf.structured(fairseq_neupronet.models.neupronet.NeuProNetConfig())
    with open_dict(config):
        config = OmegaConf.merge(config, {"_name": "NeuProNet"}, MODEL, options)
    return task.build_model(config)


def build_extractor(task, **options):
    """A spectrogram wav2vec 2.0 in pretraining, and the configuration that a checkpoint of it would hold."""
    config = OmegaConf.structured(fairseq_neupronet.models.spectrogram_wav2vec2.SpectrogramWav2Vec2Config())
    with open_dict(config):
        config = OmegaConf.merge(config, {"_name": "spectrogram_wav2vec2"}, TRANSFORMER, options)
    model = task.build_model(config)
    return model, OmegaConf.to_container(config, enum_to_str=True)


def build_criterion(task, **options):
    return criterions.build_criterion(OmegaConf.create({"_name": "NeuProNet"} | options), task)


def batches(task, split: str, batch_size: int = 8, epoch: int = 1, num_workers: int = 0, **options) -> list[dict]:
    """The split's batches as fairseq's own iterator gives them."""
    if split not in task.datasets:
        task.load_dataset(split)
    iterator = task.get_batch_iterator(
        task.dataset(split),
        max_sentences=batch_size,
        seed=1,
        epoch=epoch,
        num_workers=num_workers,
        data_buffer_size=10,
        **options,
    )
    return list(iterator.next_epoch_itr(shuffle=False))


def validate(task, model, criterion, split: str, batch_size: int = 8) -> dict:
    """Figures of a split, reduced as fairseq-validate does."""
    model.eval()
    criterion.eval()
    logs = [task.valid_step(batch, model, criterion)[2] for batch in batches(task, split, batch_size)]
    with metrics.aggregate(new_root=True) as aggregator:
        task.reduce_metrics(logs, criterion)
        return dict(aggregator.get_smoothed_values())


def evaluation(task, model, criterion, split: str, batch_size: int = 8):
    """What the task evaluated last, clips in manifest order: logits (N, K), targets (N,)."""
    validate(task, model, criterion, split, batch_size)
    evaluated = task.evaluation.latest[1]
    order = evaluated.index.argsort()
    return evaluated.logits[order], evaluated.target[order]


def dataset(manifest: Manifest, **options) -> SpectrogramDataset:
    """A dataset of its own, without a task."""
    targets = np.arange(len(manifest)) % 3
    return SpectrogramDataset(manifest, targets, "train", DatasetOptions(**{"training": False, "seed": 1} | options))


def collated(data: SpectrogramDataset, *numbers: int) -> dict:
    return data.collater([data[number] for number in numbers])


# ---- the real commands ---------------------------------------------------------------------------------------------


def as_overrides(values: dict, prefix: str) -> list[str]:
    """Nested options in Hydra's override grammar."""
    lines = []
    for key, value in values.items():
        if isinstance(value, dict):
            lines += as_overrides(value, f"{prefix}.{key}")
        else:
            lines.append(f"{prefix}.{key}='{value}'" if isinstance(value, str) else f"{prefix}.{key}={value}")
    return lines


TINY_TRAINING = [
    "dataset.batch_size=8",
    "dataset.num_workers=0",
    "common.log_interval=1",
    "optimization.max_update=4",
    "optimization.max_epoch=0",
    "optimization.lr=[0.01]",
]
TINY_FINETUNING = [*TINY_TRAINING, *as_overrides(MODEL, "model")]
TINY_PRETRAINING = [*TINY_TRAINING, "lr_scheduler.warmup_updates=1", *as_overrides(TRANSFORMER, "model")]

# The checkpoint stands where the fixture `place` pretrains it.
FROM_EXTRACTOR = [
    "task.data=data",
    "task.profiling=True",
    "model.profile_extractor_path=pretrained/checkpoints/checkpoint_last.pt",
]


def environment() -> dict:
    """That of a user who has activated the environment these tests run in, whether or not it is activated."""
    own = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}  # set by the plugin here
    own["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), own.get("PATH", os.defpath)))
    return own | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}


def command(name: str, *arguments, cwd: Path, **options) -> subprocess.CompletedProcess:
    """Run one of fairseq's commands to its end; output and errors come as text."""
    program = Path(sys.executable).with_name(name)
    return subprocess.run(
        [program, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def training(stage: str, recipe: str, *overrides) -> list[str]:
    """Arguments of fairseq-hydra-train for one of the shipped recipes, made tiny."""
    tiny = TINY_PRETRAINING if stage == "pretraining" else TINY_FINETUNING
    return ["--config-dir", str(ROOT / "configs" / stage), "--config-name", recipe, *tiny, *map(str, overrides)]


def train(stage: str, recipe: str, *overrides, cwd: Path) -> subprocess.CompletedProcess:
    return command("fairseq-hydra-train", *training(stage, recipe, *overrides), cwd=cwd)


def fairseq_validate(checkpoint: Path, data: Path, *options, task: str = "audio_finetuning", split="test", batch=8):
    """fairseq-validate inside this process, which spares its start of some seconds; errors are raised."""
    arguments = ["--path", checkpoint, "--user-dir", ROOT / "fairseq_neupronet", "--task", task, data, "--cpu"]
    arguments += ["--valid-subset", split, "--batch-size", batch, "--num-workers", 0, "--no-progress-bar", *options]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with mock.patch.object(sys, "argv", ["fairseq-validate", *map(str, arguments)]):
        try:
            validate_command.cli_main()
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def one_sentence(finished: subprocess.CompletedProcess) -> str:
    """The error of a command that failed as it should: without a traceback, on one line."""
    assert finished.returncode != 0, finished.stdout
    assert "Traceback" not in finished.stderr + finished.stdout, finished.stderr
    found = [line for line in finished.stderr.splitlines() if line.startswith("neupronet: error: ")]
    assert len(found) == 1, finished.stderr
    return found[0]
