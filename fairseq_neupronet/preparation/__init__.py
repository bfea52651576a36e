"""From a data set to what training reads: features, manifests, labels and a dictionary."""

import time
from pathlib import Path

from fairseq_neupronet.files import sweep_temporaries
from fairseq_neupronet.preparation.clips import Collection


def prepare(
    collection: Collection,
    out,
    recipe,
    workers: int | None = None,
    progress: bool = True,
    packed: bool = False,
    half: bool = False,
) -> list[str]:
    """Compute the features of a collection and then write its manifests.

    A folder may be prepared again, packed where it was loose too: features are kept. Those in zips are used where they
    are, packed or not.

    Args:
        collection: a data set, from a ``read`` function of :data:`.datasets.DATASETS`.
        out: output folder; features go to ``out/features``.
        recipe: the :class:`~fairseq_neupronet.audio.recipe.FeatureRecipe`.
        workers: processes; None takes one per core.
        progress: show a progress bar.
        packed: one uncompressed zip a split in place of a file a clip; needs the disk space twice for a while.
        half: packed features at half precision.

    Returns:
        Lines that say what was prepared, warnings included.

    Raises:
        InputError: nothing is written, or features only (see :func:`.extract.extract_clips`).
    """
    # numpy is imported when there is work to do, not for the command line's help.
    from fairseq_neupronet.preparation.extract import extract_clips
    from fairseq_neupronet.preparation.manifests import manifest_paths, summarise, write_partition
    from fairseq_neupronet.preparation.store import FeatureStore, archive_of_each, claim, pack, remove_loose

    started = time.time_ns()
    out = Path(out)
    features = out / "features"
    claim(features, recipe)
    archives = archive_of_each(collection) if packed else {}
    manifests = [path for folder in collection.partitions for path in manifest_paths(out / folder)]
    with FeatureStore(features, recipe.n_mels, half) as store:
        clips = collection.clips()
        stored = store.find_all(clips, archives)
        missing = [clip for clip in clips if clip.key not in stored]
        if missing:
            stored |= extract_clips(missing, features, recipe, workers, progress)
        if packed:
            stored = pack(store, stored, archives, half, manifests, started, progress)
    notes = list(collection.notes)
    if missing:  # torch takes seconds to import, which a run that computes nothing is spared
        from fairseq_neupronet.audio.features import empty_bands_notes

        notes += empty_bands_notes(recipe)
    lines = [f"note: {note}" for note in notes]
    for folder, clips in collection.partitions.items():
        write_partition(out / folder, features, clips, collection.classes, stored)
        lines += [f"{folder}:"] if folder else []
        lines += summarise(clips, collection.classes)
    if packed:
        remove_loose(features, stored)
    sweep_temporaries(out)  # of killed runs, whose workers may have written on for a moment while this one began
    return lines + [f"prepared {len(stored)} clips in {out} ({recipe.describe()})"]
