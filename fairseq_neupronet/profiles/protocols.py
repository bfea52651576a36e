"""Evaluation protocols, which say what a clip's group is, and profiles permuted as a control.

A figure means nothing without its protocol.

``single``: each clip alone. ``batch``: the clips of its profile in its batch, as they come. ``batch-N``: the same in
batches of N clips sorted by length, longest first, as the official validation makes them, whatever dataset.batch_size
is. ``full``: all clips of its profile in the split. ``enrol-n``: the clip and n other clips of its profile in the
split, drawn by (seed, path), never of its own recording where that is known. ``single``, ``full`` and ``enrol-n`` give
the same at any batch size.

Letters: N clips of the split.
"""

import re
import zlib
from dataclasses import dataclass

import numpy as np

from fairseq_neupronet.config.data import FinetuningOptions
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.profiles.enrolment import enrol
from fairseq_neupronet.profiles.groups import Grouping

PLAIN_PROTOCOLS = ("single", "batch", "full")
NUMBERED_PROTOCOLS = ("batch", "enrol")
_NUMBERED = re.compile(rf"({'|'.join(NUMBERED_PROTOCOLS)})-([1-9]\d{{0,8}})", re.ASCII)


@dataclass(frozen=True)
class Protocol:
    """A protocol by its parts.

    Attributes:
        kind: single, batch, full or enrol.
        number: N of ``batch-N``, n of ``enrol-n``; None for those without one.
    """

    kind: str
    number: int | None = None

    @classmethod
    def parse(cls, name: str) -> "Protocol":
        """From its name.

        Raises:
            InputError: no such protocol.
        """
        if name in PLAIN_PROTOCOLS:
            return cls(name)
        found = _NUMBERED.fullmatch(name)
        if not found:
            raise InputError(
                f"Unknown protocol {name!r}; known are {', '.join(PLAIN_PROTOCOLS)}, batch-N and enrol-N with a whole "
                "number from 1 up, such as batch-128 and enrol-3."
            )
        return cls(found[1], int(found[2]))

    def __str__(self) -> str:
        return self.kind if self.number is None else f"{self.kind}-{self.number}"


def group_clips(
    protocol: Protocol,
    profile: np.ndarray,
    *,
    batch: np.ndarray | None = None,
    keys: np.ndarray | None = None,
    seed: int = FinetuningOptions.protocol_seed,
    recording: np.ndarray | None = None,
) -> Grouping:
    """The groups of a split.

    Args:
        protocol: which of them.
        profile: (N,) profile codes.
        batch: (N,) number of each clip's batch; ``batch`` only.
        keys: (N,) of :func:`~fairseq_neupronet.profiles.enrolment.path_keys`; ``enrol`` only.
        seed: of the draw; ``enrol`` only.
        recording: (N,) codes of the source recordings; ``enrol`` only; None where they are not known.
    """
    profile = np.asarray(profile)
    if protocol.kind == "single":
        return Grouping.partition(np.arange(len(profile)))
    if protocol.kind == "enrol":
        enrolment = enrol(profile, keys, protocol.number, seed, recording)
        return Grouping.listed(enrolment, short_of=protocol.number)
    _, codes = np.unique(profile, return_inverse=True)
    if protocol.kind == "batch":
        _, batch_codes = np.unique(np.asarray(batch), return_inverse=True)
        codes = batch_codes * (codes.max(initial=0) + 1) + codes
    return Grouping.partition(codes)


def shuffled_profiles(profiles: np.ndarray, seed: int, split: str, classes: np.ndarray | None = None) -> np.ndarray:
    """Groups of the same sizes, of the wrong clips: what a model gains with these, it does not owe to its profiles.

    Args:
        profiles: (N,) profile codes.
        seed: 0 or more.
        split: its name; each split is permuted in its own way.
        classes: (N,) class indices; profiles are permuted among the clips of one class only, so that every group keeps
            its composition: as many clips of each class as before. None: among all.

    Returns:
        (N,) profile codes.
    """
    rng = np.random.default_rng((seed, zlib.crc32(split.encode())))
    if classes is None:
        return rng.permutation(profiles)
    shuffled = profiles.copy()
    for index in np.unique(classes):
        clips = np.flatnonzero(classes == index)
        shuffled[clips] = rng.permutation(profiles[clips])
    return shuffled
