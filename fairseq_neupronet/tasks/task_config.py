"""The options that both tasks have."""

from dataclasses import dataclass, field
from typing import Optional  # fairseq's argument parser reads these forms only

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, MISSING

from fairseq_neupronet.errors import InputError


@dataclass
class SpectrogramTaskConfig(FairseqDataclass):
    data: str = field(default=MISSING, metadata={"help": "folder of the manifests; may be relative"})
    profiling: bool = field(default=False, metadata={"help": "use the profiles of the manifests"})
    normalize: bool = field(default=False, metadata={"help": "zero mean and unit variance per clip"})
    max_sample_size: Optional[int] = field(
        default=None, metadata={"help": "frames; longer clips are cut, at a random place in training"}
    )
    min_sample_size: Optional[int] = field(
        default=None, metadata={"help": "frames; shorter clips are left out, labels included"}
    )
    padding: ChoiceEnum(["fixed", "batch"]) = field(
        default="fixed",
        metadata={
            "help": "fixed: every clip to the longest of the training split, so that results do not depend on "
            "the batch; batch: to the longest of the batch, as the official code, whose padding leaks"
        },
    )
    specaug: bool = field(default=False, metadata={"help": "SpecAugment and a roll in time, in training"})
    frequency_mask: int = field(default=48, metadata={"help": "specaug: mel bands at most"})
    time_mask: int = field(default=192, metadata={"help": "specaug: frames at most"})
    time_roll: int = field(default=1024, metadata={"help": "specaug: frames of the roll at most"})
    frequency_warp: Optional[float] = field(
        default=None,
        metadata={
            "help": "in training, stretch each clip's frequencies by a random factor, whose logarithm is at most "
            "this (vocal tract length perturbation); .1 is usual for voices, unset: none"
        },
    )
    mixup: Optional[float] = field(
        default=None,
        metadata={
            "help": "in training, mix each clip with another of its batch; the greater share is that of a draw "
            "from Beta(mixup, mixup); .2 to .4 are usual, unset: none"
        },
    )
    profile_batches: bool = field(
        default=False,
        metadata={
            "help": "train on batches of profiles x clips, as many profiles as batch_size holds, so that groups "
            "exist in a batch"
        },
    )
    clips_per_profile: int = field(default=4, metadata={"help": "profile_batches: clips of a profile at most"})
    profile_normalize: bool = field(
        default=False,
        metadata={
            "help": "zero mean and unit variance of each mel band over the clips of the profile (CMVN): all of "
            "the split in training, in evaluation those that the protocol groups"
        },
    )
    profile_normalize_clips: ChoiceEnum(["all", "random"]) = field(
        default="all",
        metadata={
            "help": "profile_normalize: in training over all clips of the profile, or over the clip and a random "
            "number of others, drawn anew for each clip and epoch"
        },
    )
    profile_normalize_prior: float = field(
        default=100.0,
        metadata={
            "help": "profile_normalize: statistics are shrunk toward those of the training split as if it gave "
            "so many frames more; 0: not at all"
        },
    )
    bfloat16: bool = field(
        default=False,
        metadata={"help": "forward pass in bfloat16 (autocast); weights, losses and optimiser stay in float32"},
    )
    seed: int = II("common.seed")


def check_task_config(cfg: SpectrogramTaskConfig) -> None:
    """Refuse numbers that leave nothing to train on.

    Raises:
        InputError: naming the option.
    """
    if not 0 <= cfg.profile_normalize_prior < float("inf"):
        raise InputError(f"task.profile_normalize_prior={cfg.profile_normalize_prior}: give frames from 0 up")
    if cfg.max_sample_size is not None and cfg.max_sample_size < 1:
        raise InputError(f"task.max_sample_size={cfg.max_sample_size}: give frames from 1 up, or leave it unset")
    if cfg.profile_batches and cfg.clips_per_profile < 1:
        raise InputError(f"task.clips_per_profile={cfg.clips_per_profile}: give clips from 1 up")
