"""Several checkpoints evaluated as one: each by its own session, their log-probabilities averaged."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from fairseq_neupronet.audio.recipe import FeatureRecipe
from fairseq_neupronet.checkpoints.contents import read_contents
from fairseq_neupronet.config.data import FinetuningOptions
from fairseq_neupronet.data.clip_files import ClipNames
from fairseq_neupronet.data.dataset import SpectrogramDataset
from fairseq_neupronet.data.manifest import read_classes, read_manifest
from fairseq_neupronet.data.string_column import read_lines
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.metrics import classification_metrics
from fairseq_neupronet.evaluation.outputs import Evaluation
from fairseq_neupronet.evaluation.plan import Plan
from fairseq_neupronet.evaluation.session import Session
from fairseq_neupronet.inference.clips import own_limits
from fairseq_neupronet.inference.ensemble import average, class_orders, common_limits
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.protocols import Protocol


class EnsembleSession:
    """A :class:`~fairseq_neupronet.evaluation.session.Session` of each checkpoint, used as if it were one.

    Probabilities are those of :class:`~fairseq_neupronet.inference.ensemble.Ensemble`. Draws of enrolment and shuffled
    profiles are the same for all models. Losses are not told: each model has a criterion of its own.

    Args:
        plan: what is asked for.

    Attributes:
        options: of a model that was trained to shuffle profiles, else of the first one; see :class:`Session`.
        classes: K names in the order of the first model.
        record: what ``metrics.json`` says of the models: their paths, and SHA-256 of the files.

    Raises:
        InputError: as a session; models that do not go together, or folders that do not hold the same clips.
    """

    def __init__(self, plan: Plan):
        _check_same_clips(list(dict.fromkeys(plan.folders)), plan.subsets)
        self._members: list[Session] = []
        self.record = {"checkpoint": [*map(str, plan.paths)], "sha256": []}
        for number, path in enumerate(plan.paths):
            contents = read_contents(path)
            self.record["sha256"].append(contents.digest)
            self._members.append(Session(plan, contents, number))
            # The first model's seed draws for all.
            plan = replace(plan, seed=self._members[0].options.protocol_seed)
        shuffling = (each.options for each in self._members if each.options.shuffle_profiles is not None)
        self.options, self.classes = next(shuffling, self._members[0].options), self._members[0].classes
        self._orders = class_orders(plan.paths, [member.classes for member in self._members])
        common_limits(plan.paths, [_limits(member) for member in self._members])

    @property
    def uses_profiles(self) -> bool:
        """Whether a clip's outputs depend on which clips share its profile, in one model at least."""
        return any(member.uses_profiles for member in self._members)

    @property
    def _grouped(self) -> int:
        """The first model whose data have profiles, or else the first one, after an evaluation."""
        has_profiles = [member.dataset.manifest.profiles is not None for member in self._members]
        return has_profiles.index(True) if any(has_profiles) else 0

    @property
    def dataset(self) -> SpectrogramDataset:
        """Of the last evaluation, with profiles where a model has them."""
        return self._members[self._grouped].dataset

    def begin(
        self, subset: str, shuffle: int | None = None, among: str = FinetuningOptions.shuffle_profiles_among
    ) -> None:
        """Turn to a subset; see :meth:`Session.begin`. Models that make no use of profiles need none shuffled."""
        for member in self._members:
            member.begin(subset, shuffle if member.uses_profiles else None, among)

    def evaluate(self, protocol: Protocol, embeddings: bool = False) -> tuple[Evaluation, dict[str, float]]:
        """The subset under a protocol: the evaluation, and its metrics.

        Raises:
            InputError: the models leave out different clips as too short.
        """
        found = [member.evaluate(protocol)[0] for member in self._members]
        rows = [member.dataset.rows[each.index.numpy()] for member, each in zip(self._members, found, strict=True)]
        for path, of_model in zip(self.record["checkpoint"], rows, strict=True):
            if not np.array_equal(of_model, rows[0]):
                raise InputError(
                    f"{path}: labels {len(of_model)} clips of {self.dataset.subset}, {self.record['checkpoint'][0]} "
                    f"{len(rows[0])} (task.min_sample_size); an ensemble takes models that label the same clips"
                )
        grouped, target, normal = found[self._grouped], found[0].target, found[0].normal
        logits = average([evaluation.logits for evaluation in found], self._orders)
        figures = classification_metrics(logits.softmax(dim=1).numpy(), target.numpy(), normal)
        return Evaluation(grouped.index, target, logits, figures, normal, grouped.n_short), figures

    def clip_groups(self) -> Grouping:
        """See :meth:`Session.clip_groups`."""
        return self._members[self._grouped].clip_groups()


def _limits(member: Session) -> tuple[float, float] | None:
    """Seconds of the longest clip that a model takes; None where its checkpoint does not know."""
    known, most = member.prepared.state, member.options.max_sample_size
    frames = [each for each in (known["fixed_frames"], most) if each]
    return own_limits(FeatureRecipe.from_dict(known["recipe"]), min(frames)) if known["recipe"] and frames else None


def _check_same_clips(folders: Sequence[Path], subsets: Sequence[str]) -> None:
    """Compare folders with the first one, line by line.

    Raises:
        InputError: naming the first difference.
    """
    for folder in folders[1:]:
        _compare(
            "class",
            *((each / "dict.label.txt", read_classes(each / "dict.label.txt"), 1) for each in (folders[0], folder)),
        )
        for subset in subsets:
            for columns in zip(_columns(folders[0], subset), _columns(folder, subset), strict=True):
                (what, *one), (_, *other) = columns
                if one[1] is not None and other[1] is not None:
                    _compare(what, one, other)


def _columns(folder: Path, subset: str):
    """What has to be the same in each folder: its name, its file, a value a clip, and the first one's line."""
    path = folder / f"{subset}.tsv"
    manifest = read_manifest(path)
    name_of = ClipNames(manifest.root)
    yield "clip", path, [name_of(clip) for clip in manifest.clips], 2
    labels, recordings = path.with_suffix(".label"), path.with_suffix(".recording")
    yield "label", labels, [line.strip() for line in read_lines(labels, "label file")], 1
    profiles = None
    if manifest.profiles is not None:
        # A profile without a name is made from the clip's place, which differs between loose and packed features.
        names = (manifest.own_profile(row) for row in range(len(manifest)))
        profiles = ["" if name.startswith("clip:") else name for name in names]
    yield "profile", path, profiles, 2
    yield "recording", recordings, list(read_lines(recordings, "file")) if recordings.exists() else [], 1


def _compare(what: str, one: tuple, other: tuple) -> None:
    (one_path, one_values, _), (path, values, first_line) = one, other
    for number, (wanted, found) in enumerate(itertools.zip_longest(one_values, values)):
        if wanted != found:
            wanted, found = ("none" if each is None else repr(each) for each in (wanted, found))
            raise InputError(
                f"{path}:{number + first_line}: {what} is {found}, in {one_path} it is {wanted}; the folders of an "
                "ensemble hold the same clips, labels and profiles, line by line"
            )
