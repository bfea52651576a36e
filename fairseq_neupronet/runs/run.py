"""Where a training's outputs go, whether it is finished, and whether another training lives there.

A Hydra callback, named in our configs under ``hydra.callbacks``: ``fairseq-hydra-train`` stays stock. The folder's
name has no clock in it, so that the same command resumes; what a folder holds is written down beside the checkpoints.
"""

import copy
import hashlib
import json
import re
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from fairseq_neupronet.config.retired import check_retired
from fairseq_neupronet.data.clip_files import check_files
from fairseq_neupronet.errors import InputError, sentence_of, show_sentences
from fairseq_neupronet.evaluation.metrics import ICBHI_METRICS
from fairseq_neupronet.files import atomic_file, package_folder, sweep_temporaries
from fairseq_neupronet.training_progress import finish_progress

_LONGEST_NAME = 180
_TRI_STAGE_LEAST_UPDATES = 4
_SETTINGS = "the training's settings"
# What tells the processes of one training apart, or one start from the next: no setting of the training.
_PROCESS_FIELDS = ("distributed_rank", "device_id", "distributed_init_method", "distributed_port")
_PROCESS_OVERRIDE = re.compile(rf"\+*distributed_training\.({'|'.join(_PROCESS_FIELDS)})=")


def run_name(overrides: list[str]) -> str:
    """A folder name from the overrides, whatever their order; ``default`` without any.

    It is one for all processes of a training: what tells them apart is left out.

    What a shell or a file system would stumble over becomes ``_``, and a digest keeps names apart that this, or the cut
    to a file system's length, made equal.
    """
    exact = ",".join(sorted(override for override in overrides if not _PROCESS_OVERRIDE.match(override)))
    readable = re.sub(r"[^\w.,=+-]", "_", exact)
    if readable != exact or len(readable) > _LONGEST_NAME:
        readable = f"{readable[:_LONGEST_NAME]}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"
    return readable or "default"


def check_inputs(config: DictConfig) -> None:
    """Read the data's tables and build task, model and criterion once, before the output folder is made.

    Raises:
        InputError: anything the training would stumble over at its start.
    """
    from fairseq.dataclass.initialize import add_defaults
    from fairseq.tasks import setup_task
    from fairseq.utils import import_user_module

    from fairseq_neupronet.trainer.processes import check_processes

    import_user_module(config.common)
    check_retired(config, _SETTINGS, training=True)
    config = copy.deepcopy(config)
    add_defaults(config)
    check_processes(config)
    _check_schedule(config)
    _check_precision(config)
    task = setup_task(config.task)
    _check_best_metric(config, task)
    task.build_model(config.model)
    task.build_criterion(config.criterion)
    evaluated = [] if config.dataset.disable_validation else config.dataset.valid_subset.split(",")
    for split in (config.dataset.train_subset, *evaluated):
        task.load_dataset(split)
        check_files(task.dataset(split).manifest)


OmegaConf.register_new_resolver("neupronet_run", run_name, replace=True)


def _refuse(sentence: str) -> None:
    # Hydra turns a callback's exceptions into warnings; only an exit stops the run.
    print(f"neupronet: error: {sentence}", file=sys.stderr)
    raise SystemExit(1)


class TrainingRun(Callback):
    """Registers the plugin, tells finished from unfinished runs, and guards a run's folder."""

    def __init__(self):
        self._sweeps = self._skipped = False

    def on_run_start(self, config: DictConfig, **kwargs) -> None:
        _register()
        with open_dict(config.common):
            config.common.update(_places(config))
        try:
            check_inputs(config)
        except InputError as error:
            _refuse(str(error))
        except OmegaConfBaseException as error:
            _refuse(sentence_of(error))

    def on_multirun_start(self, config: DictConfig, **kwargs) -> None:
        _register()
        self._sweeps = True
        # Each training of a sweep is composed anew, with these overrides and its own.
        places = [(name, place.replace("'", r"\'")) for name, place in _places(config).items()]
        with read_write(config.hydra.overrides):
            config.hydra.overrides.hydra += [f"++common.{name}='{place}'" for name, place in places]

    def on_job_start(self, config: DictConfig, **kwargs) -> None:
        from fairseq_neupronet.runs import log
        from fairseq_neupronet.trainer import stopping
        from fairseq_neupronet.trainer.patches import patch_fairseq, prepare_each_process, skip_training

        patch_fairseq()
        prepare_each_process(log.begin)
        folder = Path(HydraConfig.get().runtime.output_dir)
        record = folder / "training.json"
        earlier = _read(record) if record.is_file() else None
        try:
            _check_texts(config)  # of each training of a sweep
            check_retired(config, _SETTINGS, training=True)
            check_retired(earlier["settings"] if earlier else {}, record, training=True)
        except InputError as error:
            _refuse(str(error))
        settings = _settings(config)
        if earlier:
            changed = sorted(_changed(earlier["settings"], settings))
            if changed:
                _refuse(
                    f"{folder}: holds a training with other settings ({', '.join(changed)}); remove the folder, or "
                    "name another with hydra.run.dir=…"
                )
            if earlier["finished"]:
                print(f"neupronet: finished already: {folder}; nothing to do (remove the folder to train again)")
                if not self._sweeps:
                    raise SystemExit(0)
                self._skipped = True
                skip_training()
                return
        if not config.get("distributed_training", {}).get("distributed_no_spawn", False):
            stopping.forward_to_processes()
        if not _is_first_process(config):
            return
        if earlier:
            print(f"neupronet: resuming {folder}")
            sweep_temporaries(folder)  # of an attempt that was killed while it wrote its log or its settings
        _write(record, settings, finished=False)

    def on_job_end(self, config: DictConfig, job_return, **kwargs) -> None:
        if self._skipped:
            self._skipped = False
            return
        if job_return.status == JobStatus.COMPLETED and _is_first_process(config):
            folder = Path(HydraConfig.get().runtime.output_dir)
            _write(folder / "training.json", _settings(config), finished=True)
            finish_progress(config.checkpoint.save_dir)
            print(f"neupronet: finished: {folder}")
            _summarize(job_return.cfg, folder)
        from fairseq_neupronet.trainer.stopping import EXIT_CODE

        # Where fairseq started the processes, and they have been told to stop.
        if getattr(job_return._return_value, "exit_code", None) == EXIT_CODE:
            raise SystemExit(EXIT_CODE)


def _register() -> None:
    show_sentences()
    # The package is imported by now, so that fairseq's own import of user_dir would register nothing.
    import fairseq_neupronet.tasks  # noqa: F401


def _places(config: DictConfig) -> dict[str, str]:
    """Options of section ``common`` that say where this machine has the package, and where pictures go."""
    from fairseq_neupronet.runs.log import can_log

    places, package = {}, package_folder()
    if Path(config.common.user_dir).name == package.name:
        places["user_dir"] = str(package)
    if config.common.get("tensorboard_logdir") is None and can_log():
        places["tensorboard_logdir"] = "${hydra:runtime.output_dir}/tensorboard"
    return places


def _summarize(config: DictConfig, folder: Path) -> None:
    """The training itself is done and on record: what goes wrong here is one line."""
    from fairseq_neupronet.runs.end import finish

    try:
        lines = finish(_complete(config), folder)
    except Exception as error:
        lines = [f"no model card and no summary: {error}"]
    for line in lines:
        print(f"neupronet: {line}")


def _complete(config: DictConfig) -> dict:
    """With fairseq's defaults for what the recipe does not name, resolved."""
    from fairseq.dataclass.initialize import add_defaults

    config = copy.deepcopy(config)
    add_defaults(config)
    return OmegaConf.to_container(config, resolve=True, enum_to_str=True)


def _is_first_process(config: DictConfig) -> bool:
    """Whether this process keeps the folder's record; where each process is started by hand, all run this callback."""
    return int(config.get("distributed_training", {}).get("distributed_rank", 0)) == 0


def _settings(config: DictConfig) -> dict:
    settings = OmegaConf.to_container(config, resolve=True)
    settings.pop("hydra", None)
    # Where things stand may change between two starts of one training.
    settings["common"].pop("user_dir", None)
    settings["common"].pop("tensorboard_logdir", None)
    settings["checkpoint"].pop("save_dir", None)
    for name in _PROCESS_FIELDS:
        settings.get("distributed_training", {}).pop(name, None)
    return settings


def _changed(earlier: dict, now: dict, prefix: str = ""):
    # An option that only one of them has came or went with another version of this package.
    for key in earlier.keys() & now.keys():
        before, after = earlier[key], now[key]
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _changed(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}"


def _check_texts(config: DictConfig) -> None:
    """fairseq evaluates some of them, which may come from a yaml that somebody else wrote."""
    from fairseq_neupronet.checkpoints.texts import check_texts

    sections = OmegaConf.masked_copy(config, [name for name in config if name != "hydra"])
    check_texts(OmegaConf.to_container(sections, resolve=True), Path(_SETTINGS))


def _check_schedule(config: DictConfig) -> None:
    updates = config.optimization.max_update
    if config.lr_scheduler._name == "tri_stage" and 0 < updates < _TRI_STAGE_LEAST_UPDATES:
        raise InputError(
            f"optimization.max_update={updates}: the tri-stage schedule of fairseq divides by zero below "
            f"{_TRI_STAGE_LEAST_UPDATES} updates; give more, or set lr_scheduler._name=fixed"
        )


def _check_precision(config: DictConfig) -> None:
    for name in ("memory_efficient_fp16", "memory_efficient_bf16"):
        if config.common.get(name) and config.optimizer._name == "fused_adam":
            raise InputError(
                f"common.{name}=true: fused_adam keeps its weights in float32; set optimizer._name=adam, "
                f"or common.{name.removeprefix('memory_efficient_')}=true instead"
            )
    # fairseq's copies in float32 get gradients of zero where a parameter has none: weight decay would move them.
    for kind in ("fp16", "bf16"):
        for network in ("backbone", "profile_extractor"):
            n_updates = config.model.get(f"freeze_{network}_updates")
            if config.common.get(kind) and n_updates:
                raise InputError(
                    f"model.freeze_{network}_updates={n_updates}: common.{kind}=true would move what is frozen; set "
                    f"model.freeze_{network}=true, which freezes for the whole training, or task.bfloat16=true instead "
                    f"of common.{kind}"
                )


def _check_best_metric(config: DictConfig, task) -> None:
    wanted, known = config.checkpoint.best_checkpoint_metric, getattr(task, "figure_names", None)
    if known is None or wanted in known:
        return
    reason = "there is no such figure"
    if wanted in ICBHI_METRICS:
        reason = (
            f"it is relative to a class {task.cfg.normal_class!r}, which {task.prepared.folder / 'dict.label.txt'} "
            "does not have; name the normal class with task.normal_class"
        )
    raise InputError(f"checkpoint.best_checkpoint_metric={wanted}: {reason}; known are {', '.join(known)}")


def _read(record: Path) -> dict:
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        _refuse(f"{record}: is damaged; delete it, and the same command goes on with the checkpoints beside it")


def _write(record: Path, settings: dict, finished: bool) -> None:
    with atomic_file(record, synced=True) as file:
        json.dump({"finished": finished, "settings": settings}, file, indent=2, default=str)
