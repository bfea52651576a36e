"""A tiny corpus of audio files, prepared, and checkpoints of untrained models on it, for tests of a model in use."""

from pathlib import Path

import numpy as np
import soundfile
import tiny
import torch
from omegaconf import OmegaConf, open_dict

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.models.neupronet import NeuProNetConfig
from fairseq_neupronet.preparation import prepare
from fairseq_neupronet.preparation.clips import read_table

RATE = 16000
SECONDS = (0.2, 0.6)  # shortest, longest
CLIPS = {"train": 12, "valid": 6, "test": 14}
PROFILES = 3
EFFICIENTNET = {"backbone": "efficientnet-b0"}


def sound(rng: np.random.Generator, number: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """Noise and a tone. (samples,) float64."""
    time = np.arange(int(seconds * rate)) / rate
    return 0.05 * rng.normal(size=len(time)) + 0.3 * np.sin(2 * np.pi * (200 + 150 * (number % 7)) * time)


def write_corpus(folder: Path, **recipe) -> Path:
    """``folder/audio`` with its ``clips.csv``, prepared into ``folder/data``."""
    rng = np.random.default_rng(5)
    (folder / "audio").mkdir(parents=True)
    rows = []
    for split, n_clips in CLIPS.items():
        for number in range(n_clips):
            seconds = SECONDS[1] if number == 0 else rng.uniform(*SECONDS)
            name = f"{split}{number}.wav"
            soundfile.write(folder / "audio" / name, sound(rng, number, seconds), RATE, subtype="FLOAT")
            rows.append(f"{name},{tiny.CLASSES[number % 3]},p{rng.integers(PROFILES)},{split}\n")
    table = folder / "audio" / "clips.csv"
    table.write_text("path,label,profile,split\n" + "".join(rows), encoding="utf-8")
    made = FeatureRecipe.from_dict(tiny.RECIPE | recipe)
    prepare(read_table(table), folder / "data", made, workers=1, progress=False)
    return folder


def build(data: Path, seed: int = 1, model: dict | None = None, **task_options):
    """A task, a model with statistics and weights of its own in evaluation mode, and its configuration."""
    task = tiny.build_task(data, **task_options)
    config = OmegaConf.structured(NeuProNetConfig())
    with open_dict(config):
        config = OmegaConf.merge(config, {"_name": "NeuProNet"}, tiny.MODEL, model or {})
    torch.manual_seed(seed)
    network = task.build_model(config)
    settle(network, task)
    for parameter in network.head.parameters():  # far enough apart for labels to differ
        torch.nn.init.normal_(parameter)
    return task, network.eval(), config


def settle(network, task) -> None:
    """Give batch norms the statistics of the training clips, so that an untrained network tells clips apart."""
    (batch,) = tiny.batches(task, "train", batch_size=CLIPS["train"])
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(batch["net_input"]["source"], batch["net_input"]["padding_mask"])


def compute_precisely(network) -> None:
    """Let the backbone compute in float64, between float32 inputs and outputs."""
    if network.backbone is not None:
        network.backbone.double()
        network.backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(), *inputs[1:]))
        network.backbone.register_forward_hook(lambda _, inputs, output: output.float())


def save(path: Path, task, network, config, **task_state) -> Path:
    """A checkpoint as fairseq writes it, without the optimiser's state; ``task_state`` replaces what the task says."""
    sections = {
        name: OmegaConf.to_container(section, resolve=True, enum_to_str=True)
        for name, section in {"task": task.cfg, "model": config}.items()
    }
    state = {"cfg": sections, "model": network.state_dict(), "task_state": task.state_dict() | task_state}
    torch.save(state, path)
    return path


def evaluate(task, network, protocol: str, batch_size: int = 5) -> dict[str, np.ndarray]:
    """Logits (K,) of the test split's clips by name, as fairseq-validate has them under a protocol."""
    task.cfg.protocol = protocol
    criterion = tiny.build_criterion(task)
    task.datasets.clear()
    logits, _ = tiny.evaluation(task, network, criterion, "test", batch_size=batch_size)
    clips = task.dataset("test").manifest.clips
    return {Path(clip).stem: row.numpy() for clip, row in zip(clips, logits, strict=True)}


def files_of_test(corpus: Path) -> list[str]:
    return [str(corpus / "audio" / f"test{number}.wav") for number in range(CLIPS["test"])]


def profiles_of_test(corpus: Path) -> list[str]:
    rows = (corpus / "audio" / "clips.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [row.split(",")[2] for row in rows if row.endswith(",test")]
