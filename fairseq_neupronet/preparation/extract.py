"""Features of many clips: parallel over processes, each file atomic."""

import contextlib
import io
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.preparation.clips import Clip
from fairseq_neupronet.preparation.store import Stored, loose_name

_IN_PROCESS_BELOW = 32  # clips for which starting workers (seconds, for the import of torch) does not pay
_FAILURES_SHOWN = 10


def extract_clips(
    clips: list[Clip], features: Path, recipe: FeatureRecipe, workers: int | None = None, progress: bool = True
) -> dict[str, Stored]:
    """Compute the features of all clips into ``features/<key>.npy``, (M, F) float32.

    Args:
        clips: the clips.
        features: the features folder, claimed for the recipe.
        recipe: what to compute.
        workers: processes; None takes one per core.
        progress: show a progress bar.

    Returns:
        The shapes, by ``Clip.key``.

    Raises:
        InputError: audio that does not decode (lists the files; the others' features are kept for the next run); a
            full disk.
    """
    stored, failures = {}, []
    with tqdm(total=len(clips), desc="features", unit="clip", disable=not progress) as bar:
        for clip, result in zip(clips, _results(clips, features, recipe, workers), strict=True):
            if isinstance(result, str):
                failures.append(result)
            else:
                stored[clip.key] = Stored(result)
            bar.update()
    if failures:
        shown = "; ".join(failures[:_FAILURES_SHOWN])
        more = f"; and {len(failures) - _FAILURES_SHOWN} more" if len(failures) > _FAILURES_SHOWN else ""
        raise InputError(
            f"{len(failures)} of {len(clips)} audio files cannot be used, so no manifest was written: {shown}{more}"
        )
    return stored


def _results(clips: list[Clip], features: Path, recipe: FeatureRecipe, workers: int | None):
    """Yield, in order, (n_mels, n_frames) or the sentence that says why a clip cannot be used."""
    workers = workers or _usable_cores()
    work = partial(_extract_one, features=features, recipe=recipe)
    if workers == 1 or len(clips) < _IN_PROCESS_BELOW:
        with _one_thread():
            yield from map(work, clips)
        return
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    chunk = max(1, min(64, len(clips) // (4 * workers)))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as pool:
        try:
            yield from pool.map(work, clips, chunksize=chunk)
        except BrokenProcessPool as error:
            raise InputError(
                f"{features}: a worker process was killed, probably for want of memory; run the same "
                "command again with --workers 1 (what is done is kept)"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _usable_cores() -> int:
    # A container or a batch system may grant fewer cores than the machine has; not every system can tell.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker() -> None:
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)  # the processes are the parallelism; threads on top of them fight for the cores


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, which would wait for work from each other for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    # A clip is too little work for two, which beside another busy process spend nearly all their time on waiting.
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _extract_one(clip: Clip, features: Path, recipe: FeatureRecipe) -> tuple[int, int] | str:
    # torch is imported where features are computed, not by every command that knows about preparation.
    from fairseq_neupronet.audio.decode import load_audio
    from fairseq_neupronet.audio.features import extract_features

    try:
        waveform = load_audio(clip.path, recipe.sample_rate, clip.start, clip.end)
    except InputError as error:
        return str(error)
    array = extract_features(waveform, recipe)
    with atomic_file(features / loose_name(clip.key), "wb") as stream:
        encoded = io.BytesIO()
        np.save(encoded, array)  # to a file numpy writes through a second descriptor, at twice the time
        stream.write(encoded.getbuffer())
    return array.shape
