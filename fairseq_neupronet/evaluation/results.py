"""``predictions.tsv`` and ``metrics.json``: what an evaluation leaves behind."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from fairseq_neupronet.data.clip_files import ClipNames
from fairseq_neupronet.evaluation.metrics import confusion_matrix, undefined_reasons
from fairseq_neupronet.evaluation.outputs import Evaluation
from fairseq_neupronet.files import atomic_file


def write_results(
    folder: str | Path,
    evaluation: Evaluation,
    dataset,
    classes: list[str],
    protocol: str,
    made_by: Mapping,
    control: str | None = None,
) -> None:
    """Write both files, clips in manifest order; ``confusion`` has a row per target, a column per prediction.

    Args:
        folder: made if missing.
        evaluation: of every clip of the dataset.
        dataset: a :class:`~fairseq_neupronet.data.dataset.SpectrogramDataset`.
        classes: K names in index order.
        protocol: the protocol of the figures.
        made_by: what is to be said of the model, its ``checkpoint`` at least.
        control: what stands in for the model, see :mod:`~fairseq_neupronet.evaluation.controls`.

    Raises:
        InputError: the folder cannot be written.
    """
    order = evaluation.index.argsort()
    target = evaluation.target[order].tolist()
    probabilities = evaluation.probabilities[order]
    predicted = probabilities.argmax(dim=1).tolist()
    manifest, rows = dataset.manifest, dataset.rows[evaluation.index[order].numpy()]
    name_of = ClipNames(manifest.root)
    with atomic_file(Path(folder) / "predictions.tsv") as file:
        print("path", "profile", "target", "prediction", *classes, sep="\t", file=file)
        for number, (row, clip_probabilities) in enumerate(zip(rows, probabilities.tolist(), strict=True)):
            print(
                name_of(manifest.clips[row]),
                manifest.own_profile(row),
                classes[target[number]],
                classes[predicted[number]],
                *(f"{probability:.9g}" for probability in clip_probabilities),
                sep="\t",
                file=file,
            )
    defined = {name: None if math.isnan(value) else value for name, value in evaluation.metrics.items()}
    summary = {
        **made_by,
        "subset": dataset.subset,
        "protocol": protocol,
        **({} if control is None else {"control": control}),
        **({} if evaluation.n_short is None else {"short_of_enrolment": evaluation.n_short}),
        "clips": len(target),
        "metrics": defined,
        "undefined": undefined_reasons(probabilities.numpy(), evaluation.target[order].numpy(), evaluation.normal),
        "classes": classes,
        "confusion": confusion_matrix(predicted, target, len(classes)).tolist(),
    }
    with atomic_file(Path(folder) / "metrics.json") as file:
        json.dump(summary, file, indent=2)
        file.write("\n")
