"""Options of the data (``task.*``): which clips, how they are changed, how they are grouped in evaluation."""

from dataclasses import dataclass

from fairseq_neupronet.config.option import REQUIRED, option

PADDINGS = ("fixed", "batch")
NORMALIZED_OVER = ("all", "random")
# Among which clips a control permutes the profiles.
AMONG = ("all_clips", "clips_of_a_class")


@dataclass
class DataOptions:
    """Options of pretraining and fine-tuning."""

    data: str = option(REQUIRED, "folder of the manifests; may be relative")
    profiling: bool = option(False, "use the profiles of the manifests")
    normalize: bool = option(False, "zero mean and unit variance per clip")
    max_sample_size: int | None = option(None, "frames; longer clips are cut, at a random place in training")
    min_sample_size: int | None = option(None, "frames; shorter clips are left out, labels included")
    padding: str = option(
        "fixed",
        "fixed: every clip to the longest of the training split, so that results do not depend on the batch; batch: to "
        "the longest of the batch, as the official code, whose padding leaks",
        choices=PADDINGS,
    )
    specaug: bool = option(False, "SpecAugment and a roll in time, in training")
    frequency_mask: int = option(48, "specaug: mel bands at most", advanced=True)
    time_mask: int = option(192, "specaug: frames at most", advanced=True)
    time_roll: int = option(1024, "specaug: frames of the roll at most", advanced=True)
    frequency_warp: float | None = option(
        None,
        "in training, stretch each clip's frequencies by a random factor, whose logarithm is at most this (vocal tract "
        "length perturbation); .1 is usual for voices, unset: none",
    )
    mixup: float | None = option(
        None,
        "in training, mix each clip with another of its batch; the greater share is that of a draw from "
        "Beta(mixup, mixup); .2 to .4 are usual, unset: none",
    )
    profile_batches: bool = option(
        False,
        "train on batches of profiles x clips, as many profiles as batch_size holds, so that groups exist in a batch",
    )
    clips_per_profile: int = option(4, "profile_batches: clips of a profile at most")
    profile_normalize: bool = option(
        False,
        "zero mean and unit variance of each mel band over the clips of the profile (CMVN): all of the split in "
        "training, in evaluation those that the protocol groups",
    )
    profile_normalize_clips: str = option(
        "all",
        "profile_normalize: in training over all clips of the profile, or over the clip and a random number of others, "
        "drawn anew for each clip and epoch",
        choices=NORMALIZED_OVER,
    )
    profile_normalize_prior: float = option(
        100.0,
        "profile_normalize: statistics are shrunk toward those of the training split as if it gave so many frames "
        "more; 0: not at all",
        advanced=True,
    )
    bfloat16: bool = option(False, "forward pass in bfloat16 (autocast); weights, losses and optimiser stay in float32")
    seed: int = option("${common.seed}", "seed of crops, augmentation and order", advanced=True)


@dataclass
class FinetuningOptions(DataOptions):
    """Options that fine-tuning has besides: of evaluation."""

    protocol: str = option(
        "full",
        "how clips are grouped in evaluation: single, each alone; batch, by the batch they happen to be in; batch-N, "
        "the same in batches of N, longest clips first, as the official code; full, with all clips of the profile in "
        "the split; enrol-N, with N others of them",
    )
    protocol_seed: int = option(1, "enrol-N: of the draw of the other clips")
    normal_class: str = option(
        "normal",
        "the class that sensitivity, specificity and icbhi_score are relative to; without a class of that name they "
        "are left out",
    )
    shuffle_profiles: int | None = option(
        None,
        "a seed that permutes the profiles among the clips of each split: groups of the same sizes, of the wrong "
        "clips; a control",
    )
    shuffle_profiles_among: str = option(
        "all_clips",
        "shuffle_profiles: among all_clips, or among the clips_of_a_class, so that every group keeps its composition, "
        "as many clips of each class, and loses only its sound",
        choices=AMONG,
    )
    adaptive_batch_norm: float | None = option(
        None,
        "evaluation: each clip is batch-normalised by the statistics of its group, or under enrol-N of the N others, "
        "weighed against those of the training as if that gave so many clips; 30 is a good number, unset: those of the "
        "training alone",
    )
    results_path: str | None = option(
        None, "evaluation writes predictions.tsv and metrics.json into this folder", advanced=True
    )
    path: str | None = option(None, "the checkpoint under validation; fairseq sets it", advanced=True)
