"""A checkpoint in memory, evaluated on one subset after the other."""

import argparse
from dataclasses import replace

import torch
from fairseq import checkpoint_utils, utils
from fairseq.dataclass.utils import overwrite_args_by_name
from fairseq.logging import metrics
from omegaconf import OmegaConf

import fairseq_neupronet.tasks  # noqa: F401 (registers the plugin)
from fairseq_neupronet.checkpoints.contents import Contents, read_contents
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.evaluation.outputs import Evaluation
from fairseq_neupronet.evaluation.plan import Plan
from fairseq_neupronet.profiles.groups import Grouping
from fairseq_neupronet.profiles.protocols import Protocol
from fairseq_neupronet.profiles.shuffling import AMONG
from fairseq_neupronet.tasks.spectrogram_finetuning import SpectrogramFinetuningTask


class Session:
    """Task, model and criterion of a checkpoint, as ``fairseq-validate`` makes them.

    Args:
        plan: what is asked for.
        contents: of the plan's checkpoint, where it has been read already.

    Raises:
        InputError: another kind of checkpoint, data that does not fit it, or a device that is not there.
    """

    def __init__(self, plan: Plan, contents: Contents | None = None):
        if plan.user_dir is not None:
            utils.import_user_module(argparse.Namespace(user_dir=plan.user_dir))
        self.plan, self.device = plan, _device(plan.device)
        overrides = {"data": str(plan.data), "results_path": None, "path": None}
        if plan.seed is not None:
            overrides["protocol_seed"] = plan.seed
        if plan.adaptive_batch_norm is not None:
            overrides["adaptive_batch_norm"] = plan.adaptive_batch_norm
        contents = contents or read_contents(plan.path)
        state = {"cfg": OmegaConf.create(contents.config), "model": contents.weights}
        overwrite_args_by_name(state["cfg"], overrides)
        if contents.data:
            state["task_state"] = contents.data
        if contents.updates is not None:
            state["optimizer_history"] = [{"num_updates": contents.updates}]
        models, config, self.task = checkpoint_utils.load_model_ensemble_and_task([str(plan.path)], state=state)
        if not isinstance(self.task, SpectrogramFinetuningTask):
            raise InputError(f"--path {plan.path}: is a checkpoint of {config.task._name}; give one of fine-tuning")
        self.model = models[0].eval().to(self.device)
        self.criterion = self.task.build_criterion(config.criterion).eval().to(self.device)
        self._logs: dict[tuple, list[dict]] = {}

    @property
    def uses_profiles(self) -> bool:
        """Whether a clip's outputs depend on which clips share its profile."""
        return self.model.needs.any

    @property
    def _hears_groups(self) -> bool:
        """Whether a clip's embedding is another in another group."""
        return self.task.cfg.profile_normalize or self.task.cfg.adaptive_batch_norm is not None

    def begin(self, subset: str, shuffle: int | None = None, among: str = AMONG[0]) -> None:
        """Turn to a subset.

        Args:
            subset: its name.
            shuffle: a seed that permutes its profiles; None leaves them.
            among: ``task.shuffle_profiles_among``.
        """
        self._subset, self._shuffle = subset, None if shuffle is None else (shuffle, among)
        self._logs = {key: logs for key, logs in self._logs.items() if key[0] == subset}

    def evaluate(self, protocol: Protocol, embeddings: bool = False) -> tuple[Evaluation, dict[str, float]]:
        """The subset under a protocol: the evaluation, and every figure that ``fairseq-validate`` prints."""
        task = self.task
        in_training = task.cfg.shuffle_profiles, task.cfg.shuffle_profiles_among
        task.cfg.protocol = str(protocol)
        task.cfg.shuffle_profiles, task.cfg.shuffle_profiles_among = self._shuffle or in_training
        try:
            task.load_dataset(self._subset)
        finally:
            task.cfg.shuffle_profiles, task.cfg.shuffle_profiles_among = in_training
        logs = self._outputs(protocol)
        task.evaluation.begin()
        task.evaluation.keeps_embeddings = embeddings
        with metrics.aggregate(new_root=True) as aggregator:
            task.reduce_metrics(logs, self.criterion)
            figures = aggregator.get_smoothed_values()
        return task.evaluation.latest[1], {name: figures[name] for name in task.figure_names}

    def dataset(self):
        """The subset's data set, grouped by the last protocol."""
        return self.task.dataset(self._subset)

    def clip_groups(self) -> Grouping:
        """Its groups as groups of clips, where the model was given pairs of clip and group."""
        dataset = self.dataset()
        if dataset.pairs is None:
            return dataset.grouping
        return replace(dataset.grouping, enrolment=dataset.pairs, own_items=None)

    def _outputs(self, protocol: Protocol) -> list[dict]:
        """Logging outputs of all batches; clips that sound alike under two protocols go through the model once."""
        dataset = self.dataset()
        key = self._subset, dataset.batch_clips
        if self._hears_groups or (protocol.kind == "batch" and self._shuffle is not None):
            key += str(protocol), self._shuffle
        if key not in self._logs:
            batches = self.task.get_batch_iterator(
                dataset, max_sentences=self.plan.batch_size, num_workers=self.plan.workers, data_buffer_size=10
            ).next_epoch_itr(shuffle=False)
            self._logs[key] = [self._step(batch) for batch in batches]
        return self._logs[key]

    def _step(self, batch: dict) -> dict:
        if self.device.type == "cuda":
            batch = utils.move_to_cuda(batch, self.device)
        return self.task.valid_step(batch, self.model, self.criterion)[2]


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"--device {name}: torch cannot use it here ({str(error).splitlines()[0]}); give cpu, or leave it out"
        ) from None
    return device
