"""What is drawn in an update depends on (seed, update, batch of the update, worker process) alone.

fairseq seeds torch at the start of every update with seed + update, the same in every process, and numpy once, when a
training begins. So the processes of one training would all mask and drop alike, and a backbone that draws from numpy
would draw anew in a resumed training.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

_DRAW = 2**62
_TORCH_BITS = 63


@contextlib.contextmanager
def draws_of_batch(process: int) -> Iterator[None]:
    """Seed torch's and numpy's global generators for one batch of an update; numpy's is put back afterwards.

    The seeds are derived from torch's generator as it is: fairseq has seeded it with seed and update, and an earlier
    batch of the same update has moved it on.

    Args:
        process: number of the worker process.
    """
    drawn = int(torch.randint(_DRAW, ()))
    words = np.random.SeedSequence((drawn, process)).generate_state(3, np.uint64)
    torch.manual_seed(int(words[0]) & (2**_TORCH_BITS - 1))
    before = np.random.get_state()
    np.random.seed(words[1:].view(np.uint32))
    try:
        yield
    finally:
        np.random.set_state(before)
