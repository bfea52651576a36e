"""Files that rows are measured on: audio, prepared folders, manifests, a checkpoint. Made once a benchmark."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.comparison import Options
from fairseq_neupronet.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
_N_MELS, _N_FRAMES = 128, 98  # of a second, as VocalSound-1s
_CLASSES = ("laughter", "sigh", "cough", "throatclearing", "sneeze", "sniff")
_CLIPS_PER_PROFILE = 6
_FEATURE_FILES = 50
_SPLITS = {"train": 1024, "valid": 64}


def program(name: str) -> str:
    """One of the environment's commands."""
    return str(Path(sys.executable).with_name(name))


def manifest_path(options: Options, rows: int) -> Path:
    return options.scratch / "manifests" / f"{rows}.tsv"


def write_manifest(options: Options, rows: int) -> None:
    """A manifest whose rows share a few feature files; does nothing the second time."""
    path = manifest_path(options, rows)
    if path.exists():
        return
    features = path.parent / "features"
    features.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(_FEATURE_FILES):
        np.save(features / f"clip{number:02d}.npy", rng.normal(size=(_N_MELS, _N_FRAMES)).astype(np.float32))
    speakers = rng.permutation(rows) // _CLIPS_PER_PROFILE
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("features\n")
        stream.writelines(
            f"clip{row % _FEATURE_FILES:02d}.npy\t{_N_MELS}\t{_N_FRAMES}\tspeaker{speaker}\n"
            for row, speaker in enumerate(speakers.tolist())
        )


def write_audio(folder: Path, n_clips: int) -> list[Path]:
    """Clips of one second at 16 kHz: decaying harmonics in noise."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    rng, times = np.random.default_rng(0), np.arange(16000) / 16000
    paths = []
    for number in range(n_clips):
        pitch = rng.uniform(80, 400)
        voice = sum(np.sin(2 * np.pi * pitch * k * times) / k for k in range(1, 12)) * np.exp(-3 * times)
        paths.append(folder / f"clip{number:04d}.wav")
        soundfile.write(paths[-1], 0.1 * voice + 0.01 * rng.normal(size=16000), 16000)
    return paths


def prepared_folder(options: Options, test_clips: int) -> Path:
    """VocalSound-1s if its folder was given, otherwise noise in a folder of the same layout."""
    return options.vocalsound or _synthetic_folder(options.scratch / "prepared", test_clips)


def _synthetic_folder(folder: Path, test_clips: int) -> Path:
    if folder.exists():
        return folder
    (folder / "features").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n_clips in (_SPLITS | {"test": test_clips}).items():
        rows = ["features"]
        for number in range(n_clips):
            name = f"{split}{number}.npy"
            np.save(folder / "features" / name, rng.normal(size=(_N_MELS, _N_FRAMES)).astype(np.float32))
            rows.append(f"{name}\t{_N_MELS}\t{_N_FRAMES}\t{split}{number // _CLIPS_PER_PROFILE}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        labels = "".join(f"{_CLASSES[number % len(_CLASSES)]}\n" for number in range(n_clips))
        (folder / f"{split}.label").write_text(labels, encoding="utf-8")
    (folder / "dict.label.txt").write_text("".join(f"{name} 1\n" for name in _CLASSES), encoding="utf-8")
    return folder


def training_command(data: Path, run_folder: Path, *overrides: str) -> list[str]:
    """``fairseq-hydra-train`` with the recipe vocalsound_cnn, without validation."""
    return [
        program("fairseq-hydra-train"),
        "--config-dir",
        str(ROOT / "configs" / "finetuning"),
        "--config-name",
        "vocalsound_cnn",
        f"common.user_dir={ROOT / 'fairseq_neupronet'}",
        f"task.data={data}",
        f"hydra.run.dir={run_folder}",
        "dataset.disable_validation=true",
        *overrides,
    ]


def checkpoint(options: Options, data: Path) -> Path:
    """An EfficientNet-B0 after four updates."""
    folder = options.scratch / "checkpoint"
    file = folder / "checkpoints" / "checkpoint_last.pt"
    if not file.exists():
        command = training_command(
            data,
            folder,
            "task.profiling=False",
            "dataset.batch_size=8",
            "dataset.num_workers=0",
            "optimization.max_update=4",
        )
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            raise InputError(
                f"the checkpoint to validate could not be made on {data} "
                f"({made.stderr.strip().splitlines()[-1]}); nothing was written"
            )
    return file
