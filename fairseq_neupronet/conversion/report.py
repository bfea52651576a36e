"""What a conversion did with every option: mapped, defaulted or dropped."""

import re
from collections import defaultdict
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.checkpoints.texts import leaves
from fairseq_neupronet.errors import InputError

_LEFT_OUT = (
    (
        r"(generation|eval_lm|interactive|task\.eval_\w+|task\.autoregressive|task\.text_\w+|scoring|bpe|tokenizer)\b",
        "of text generation and speech recognition",
    ),
    (r"model\.w2v_args\.(?!model\.)", "how the extractor was pretrained; its own checkpoint says so too"),
    (r"model\.(w2v_path|profile_extractor_path|data)$", "paths are not followed; the weights are in the checkpoint"),
    (r"task\.(data|labels|profiles_path)$", "where the data stood; give the folder as task.data"),
    (r"model\.no_pretrained_weights$", "the weights are in the checkpoint"),
    (
        r"model\.(autoregressive|max_target_positions|no_token_positional\w+|share_decoder\w+|decoder_(?!embed_dim$)\w+)$",
        "of a text decoder that the network does not have",
    ),
    (r"(common|common_eval|distributed_training|job_logging_cfg|bmuf|ema)\b", "of the machine that trained it"),
    (
        r"model\.(ddp_backend|checkpoint_activations|offload_activations|min_params_to_wrap|fp16)$",
        "of the machine that trained it",
    ),
    (r"checkpoint\.", "where and how files were kept"),
    (r"task\.(normalize|min_sample_size)$|model\.normalize$", "changes nothing in the official code"),
    (r"task\.enable_padding$", "the official collater pads to the longest clip of the batch, whatever it says"),
    (r"task\.(adresso_pretrain|wave2graph|profile_sort)$", "of the authors' other projects"),
    (r"task\.(num_batch_buckets|precompute_mask_indices|inferred_w2v_config|tpu)$", "of TPUs"),
    (r"(optimizer|lr_scheduler|dataset|optimization)\.", "of the machine, or repeats another option"),
    (r"model\.num_classes$", "not used by the official network; clf_output_dim is"),
    (r"criterion\.ovr_onehot$", "its figures are always given: auc_micro and brier_micro"),
    (r"criterion\.sentence_avg$", "the sample size is the number of clips, always"),
)
_UNKNOWN = "unknown to this version"
_SHORT_SECTIONS = (
    "generation",
    "eval_lm",
    "interactive",
    "distributed_training",
    "bmuf",
    "ema",
    "job_logging_cfg",
    "common",
    "common_eval",
    "model.w2v_args",
    "task.eval_wer_config",
)


class Report:
    """Collects what became of each option.

    Attributes:
        read: official options that a line stands for already.
        options: options of ours that were set.
    """

    def __init__(self):
        self._mapped: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        self.defaulted: list[str] = []
        self.dropped: dict[str, list[str]] = defaultdict(list)
        self.read: set[str] = set()
        self.options: set[str] = set()

    def map(self, official: str, ours: str, value: Any, note: str = "") -> None:
        """An official option became ours; ``official`` may be words where the official code knows no option."""
        self.read.add(official)
        self.options.add(ours)
        self._mapped[official, _shown(value), note].append(ours)

    def drop(self, official: str, value: Any, reason: str) -> None:
        """An official option has no counterpart; only the first reason counts."""
        if official in self.read:
            return
        self.read.add(official)
        self.dropped[reason].append(f"{official}={_shown(value)}")

    def note(self, sentence: str) -> None:
        """Something that is no option was left out or chosen."""
        self.dropped[sentence]

    def account(self, official: dict, ours: dict[str, dict]) -> None:
        """Name everything that was not mapped: official options as dropped, ours as defaulted.

        Args:
            official: the whole configuration.
            ours: our sections whose options stand for official ones, complete, by name.
        """
        left_out: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for key, value in leaves(official):
            if key in self.read or key.rsplit(".", 1)[-1] == "_name" or value == {}:
                continue
            reason = next((text for pattern, text in _LEFT_OUT if re.match(pattern, key)), _UNKNOWN)
            section = next((name for name in _SHORT_SECTIONS if key.startswith(f"{name}.")), None)
            if section and reason != _UNKNOWN:
                left_out[reason][section] += 1
            else:
                self.dropped[reason].append(f"{printable(key)}={_shown(value)}")
        for reason, sections in left_out.items():
            self.dropped[reason] += [f"{name}.* ({count} options)" for name, count in sections.items()]
        for section, values in ours.items():
            for key, value in leaves(values, section):
                if key not in self.options and not key.endswith("._name"):
                    self.defaulted.append(f"{key} = {_shown(value)}")

    def lines(self) -> list[str]:
        """The report, grouped."""
        mapped = [
            f"{official} -> {', '.join(ours)} = {value}" + (f" ({note})" if note else "")
            for (official, value, note), ours in self._mapped.items()
        ]
        dropped = [f"{reason}: {', '.join(options)}" if options else reason for reason, options in self.dropped.items()]
        groups = {
            "mapped (official -> ours = value)": mapped,
            "defaulted (ours, without an official word)": self.defaulted,
            "dropped (official, without a counterpart)": dropped,
        }
        return [line for title, lines in groups.items() for line in (f"{title}:", *(f"  {line}" for line in lines))]


class OptionSetter:
    """Copies official options into one typed section of ours, each with a line in the report.

    Args:
        file: the official checkpoint, for messages.
        target: our section, made of its dataclass, which knows every option's type and choices.
        name: what the section is called, e.g. ``model.transformer``.
        report: gets a line for each option.
    """

    def __init__(self, file, target: DictConfig, name: str, report: Report):
        self.file, self.target, self.name, self.report = file, target, name, report

    def set(self, official: str, ours: str, value: Any, note: str = "") -> None:
        """Set one option.

        Raises:
            InputError: the value is not of the option's type, or none of its choices.
        """
        try:
            self.target[ours] = value
        except OmegaConfBaseException:
            raise InputError(
                f"{self.file}: configuration key {printable(official)} is {printable(repr(value), 60)}, which "
                f"{self.name}.{ours} cannot be; its kind is wrong, or it is none of the known choices"
            ) from None
        self.report.map(official, f"{self.name}.{ours}", self.target[ours], note)

    def copy(self, section: dict, prefix: str, names: dict[str, str]) -> None:
        """Set the options that an official section has; ``names`` gives ours by official name."""
        for official, ours in names.items():
            if official in section:
                self.set(f"{prefix}.{official}", ours, section[official])


def _shown(value: Any) -> str:
    return printable(value if isinstance(value, str) else repr(value))
