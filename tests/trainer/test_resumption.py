"""A training that is resumed ends as one that was never stopped: bit for bit, and line by line of its log.

A whole training keeps the checkpoint of each update; others start from some of them. What differs is the wall clock.
"""

import shutil
from pathlib import Path

import forked
import pytest
import tiny
from training_comparison import difference, figures

UPDATES = 13  # of 5 an epoch
# Updates whose checkpoint is resumed from: within the warm-up, amid an epoch, at its end, and the last but one.
STARTS = {1: "checkpoint_1_1.pt", 4: "checkpoint_1_4.pt", 5: "checkpoint1.pt", 12: "checkpoint_3_12.pt"}
DROPS = [
    f"model.{part}.{name}={value}"
    for part in ("transformer", "profile_extractor")
    for name, value in (
        ("encoder_layerdrop", 0.4),
        ("encoder_layers", 3),
        ("dropout", 0.2),
        ("mask_channel_prob", 0.25),
        ("mask_channel_length", 2),
    )
]
FINETUNING = [*DROPS, "lr_scheduler.phase_ratio=[0.5,0.2,0.3]", "task.time_mask=10", "task.frequency_mask=3"]
PROFILES = [*FINETUNING, "task.profiling=true", "criterion.loss_weights=[0.7,0.3]"]
TRAININGS = {
    "plain": ("finetuning", [*FINETUNING, "task.max_sample_size=40"]),
    "profile_batches": (
        "finetuning",
        [
            *PROFILES,
            "task.profile_batches=true",
            "task.clips_per_profile=2",
            "model.one_pass=false",
            "dataset.num_workers=2",
        ],
    ),
    "bank": ("finetuning", [*PROFILES, "ablation=whole_split", "dataset.batch_size=8", "optimization.lr=[0.01]"]),
    "frozen": (
        "finetuning",
        [
            *PROFILES,
            "task.specaug=false",
            "model.freeze_profile_extractor_updates=8",
            "model.freeze_backbone_updates=3",
            "model.auto_encoder=true",
        ],
    ),
    "frozen_backbone": (
        "finetuning",
        [*PROFILES, "model.freeze_backbone=true", "model.auto_encoder=true", "optimizer.weight_decay=0.1"],
    ),
    "frozen_extractor": ("finetuning", [*PROFILES, "model.freeze_profile_extractor=true", "dataset.batch_size=8"]),
    "pretraining": (
        "pretraining",
        [
            "lr_scheduler.warmup_updates=7",
            "model.encoder_layerdrop=0.4",
            "model.encoder_layers=3",
            "task.profiling=true",
            "dataset.num_workers=2",
        ],
    ),
}


def arguments(kind: str, data: Path, folder: Path, *more) -> list[str]:
    stage, options = TRAININGS[kind]
    return tiny.training(
        stage,
        "vocalsound",
        f"task.data={data}",
        *options,
        f"optimization.max_update={UPDATES}",
        "checkpoint.save_interval_updates=1",
        "checkpoint.no_epoch_checkpoints=false",
        "common.log_interval=3",
        f"hydra.run.dir={folder}",
        *more,
    )


def trained(kind: str, data: Path, folder: Path, *more) -> forked.Ended:
    ended = forked.train(arguments(kind, data, folder, *more), folder.parent, folder.with_suffix(".log"))
    assert ended.code == 0, ended.printed
    return ended


def started_from(name: str, whole: Path, folder: Path) -> Path:
    """A run folder that holds one checkpoint of another."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(whole / "checkpoints" / name, folder / "checkpoints" / "checkpoint_last.pt")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAININGS)
def test_a_training_resumed_from_any_update_ends_as_if_never_stopped(corpus, tmp_path, kind):
    whole = tmp_path / "whole"
    unbroken = figures(trained(kind, corpus, whole).printed)
    assert len({line for line in unbroken if line.startswith("valid")}) == UPDATES
    for update, name in STARTS.items():
        part = started_from(name, whole, tmp_path / str(update))
        resumed = figures(trained(kind, corpus, part).printed)
        assert not difference(*(folder / "checkpoints" / "checkpoint_last.pt" for folder in (part, whole)))
        assert resumed <= unbroken, "\n".join(sorted(resumed - unbroken))
        assert len({line for line in resumed if line.startswith("valid")}) == UPDATES - update
