"""Every subset under every protocol, beside the controls, into one folder."""

import csv
import math
from pathlib import Path

import numpy as np
import torch

from fairseq_neupronet.data.clip_files import ClipNames
from fairseq_neupronet.evaluation.controls import CONTROLS
from fairseq_neupronet.evaluation.ensemble import EnsembleSession
from fairseq_neupronet.evaluation.metrics import classification_metrics
from fairseq_neupronet.evaluation.outputs import Evaluation, write_results
from fairseq_neupronet.evaluation.plan import RESULTS, Plan
from fairseq_neupronet.evaluation.session import Session
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.profiles.protocols import Protocol

COLUMNS = ("subset", "protocol", "control", "metric", "value", "clips")
SHUFFLED = {"shuffled_profiles": "all_clips", "shuffled_within_class": "clips_of_a_class"}
"""Controls of the model itself, and among which clips each permutes the profiles."""
_SINGLE = Protocol("single")
_PRINTED = ("accuracy", "macro_f1", "auc", "loss", "clips")


def evaluate_checkpoint(plan: Plan) -> None:
    """Evaluate, write the files and print a table.

    Raises:
        InputError: a mistake of the user's; ``results.csv`` is written only where there was none.
    """
    session = Session(plan) if len(plan.paths) == 1 else EnsembleSession(plan)
    plan.out.mkdir(parents=True, exist_ok=True)
    (plan.out / RESULTS).unlink(missing_ok=True)
    rows, table = [], _Table()
    for subset in plan.subsets:
        writer = _Writer(plan, session, subset, rows, table)
        session.begin(subset)
        alone, _ = session.evaluate(_SINGLE)
        for protocol in plan.protocols:
            evaluation, figures = session.evaluate(protocol, plan.embeddings)
            writer.write(protocol, None, evaluation, figures)
            if plan.controls and protocol.kind in ("full", "enrol") and session.dataset.grouping is not None:
                for name in CONTROLS:
                    writer.write(protocol, name, _control(name, alone, session.clip_groups(), evaluation))
        if plan.controls and session.uses_profiles and session.options.shuffle_profiles is None:
            for control, among in SHUFFLED.items():
                session.begin(subset, session.options.protocol_seed, among)
                for protocol in plan.protocols:
                    if protocol != _SINGLE:
                        writer.write(protocol, control, session.evaluate(protocol)[0])
    with atomic_file(plan.out / RESULTS) as file:
        csv_writer = csv.writer(file, lineterminator="\n")
        csv_writer.writerow(COLUMNS)
        csv_writer.writerows(rows)


def _control(name: str, alone: Evaluation, groups, evaluation: Evaluation) -> Evaluation:
    """What a control makes of the outputs for each clip alone; the same clips, as the protocol's items number them."""
    logits = alone.logits.double().log_softmax(dim=1).numpy()
    probabilities = CONTROLS[name](logits, groups)
    figures = classification_metrics(probabilities, alone.target.numpy(), alone.normal)
    with np.errstate(divide="ignore"):  # a label that is never dealt
        logits = torch.from_numpy(np.log(probabilities))
    return Evaluation(evaluation.index, alone.target, logits, figures, alone.normal, evaluation.n_short)


class _Writer:
    """Files, rows of ``results.csv`` and lines of the table, of one subset."""

    def __init__(self, plan: Plan, session: Session | EnsembleSession, subset: str, rows: list, table: "_Table"):
        self._plan, self._session, self._subset, self._rows, self._table = plan, session, subset, rows, table

    def write(
        self, protocol: Protocol, control: str | None, evaluation: Evaluation, figures: dict[str, float] | None = None
    ) -> None:
        """One evaluation; ``figures`` holds losses too, where they are the model's."""
        session = self._session
        folder = self._plan.out / self._subset / (f"{protocol}+{control}" if control else str(protocol))
        write_results(folder, evaluation, session.dataset, session.classes, str(protocol), session.record, control)
        figures = dict(figures or evaluation.metrics)
        if evaluation.n_short is not None:
            figures["short_of_enrolment"] = evaluation.n_short
        n_clips = len(evaluation.target)
        self._rows += [
            (self._subset, str(protocol), control or "", name, "" if math.isnan(value) else repr(value), n_clips)
            for name, value in figures.items()
        ]
        if evaluation.embeddings:
            _write_embeddings(folder / "embeddings.npz", session.dataset, evaluation)
        self._table.add(self._subset, protocol, control, figures | {"clips": n_clips})


def _write_embeddings(path: Path, dataset, evaluation: Evaluation) -> None:
    manifest, rows = dataset.manifest, dataset.rows[evaluation.index.numpy()]
    name_of = ClipNames(manifest.root)
    arrays = {name: value.float().numpy() for name, value in evaluation.embeddings.items()}
    arrays |= {
        "path": np.array([name_of(manifest.clips[row]) for row in rows.tolist()]),
        "target": evaluation.target.numpy(),
        "logits": evaluation.logits.numpy(),
    }
    if manifest.profiles is not None:
        arrays["profile_code"] = manifest.profiles[rows]
    with atomic_file(path, "wb") as file:
        np.savez(file, **arrays)


class _Table:
    """A line as soon as an evaluation is there."""

    def __init__(self):
        self._print("subset", "protocol", "control", *_PRINTED)

    def add(self, subset: str, protocol: Protocol, control: str | None, figures: dict[str, float]) -> None:
        """Print one."""
        cells = [figures.get(name, math.nan) for name in _PRINTED]
        cells = ["" if math.isnan(cell) else f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells]
        short = figures.get("short_of_enrolment")
        note = [f"  {short} clips with fewer than {protocol.number} others"] if short else []
        self._print(subset, str(protocol), control or "", *cells, *note)

    @staticmethod
    def _print(subset: str, protocol: str, control: str, *cells: str) -> None:
        print(f"{subset:<8}{protocol:<11}{control:<21}", *(f"{cell:>9}" for cell in cells), flush=True)
