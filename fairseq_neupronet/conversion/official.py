"""Tell an official checkpoint from others, and take its parts out with their kinds checked."""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fairseq_neupronet.checkpoints.plain import printable, read_plain_checkpoint
from fairseq_neupronet.checkpoints.texts import check_texts
from fairseq_neupronet.conversion import CLASSIFIER, EXTRACTOR
from fairseq_neupronet.errors import InputError

OUR_TASKS = ("spectrogram_finetuning", "spectrogram_pretraining")
_CLASSIFIER_PARAMETERS = re.compile(r"encoder\.(w2v_model|effnet|model_ft)\.|profile_extractor\.w2v_model\.")
_WRAPPER = "module."


@dataclass
class OfficialCheckpoint:
    """An official checkpoint's parts.

    Attributes:
        path: the file.
        kind: ``EXTRACTOR`` (spectrogram wav2vec 2.0) or ``CLASSIFIER`` (``NeuProNet`` or ``CNN_NPN``).
        config: its configuration, of plain containers.
        parameters: by official name, buffers included, in the order of the official model.
        state: everything.
    """

    path: Path
    kind: str
    config: dict
    parameters: dict[str, Tensor]
    state: dict

    @classmethod
    def read(cls, path: str | Path) -> "OfficialCheckpoint":
        """Read and recognise a file.

        Raises:
            InputError: unreadable or unsafe (see :func:`read_plain_checkpoint`), or of another kind, which is named.
        """
        path = Path(path)
        state = read_plain_checkpoint(path)
        config, parameters = state.get("cfg"), state.get("model")
        if not isinstance(config, dict) or not isinstance(parameters, dict):
            named = ", ".join(printable(str(key)) for key in list(state)[:8]) or "nothing"
            what = "the weights alone" if all(isinstance(value, Tensor) for value in state.values()) else named
            raise InputError(
                f"{path}: holds {what}, without the configuration (cfg) and model of a checkpoint of fairseq since "
                "2021; give the file that official training saved"
            )
        if not parameters or not all(
            isinstance(name, str) and isinstance(value, Tensor) for name, value in parameters.items()
        ):
            raise InputError(f"{path}: its model is not a collection of named parameters")
        # What a wrapper for several processes puts before every name.
        while all(name.startswith(_WRAPPER) for name in parameters):
            parameters = {name.removeprefix(_WRAPPER): value for name, value in parameters.items()}
        checkpoint = cls(path, "", config, parameters, state)
        checkpoint.kind = checkpoint._recognise()
        check_texts(config, path)
        return checkpoint

    def section(self, name: str) -> dict:
        """A section of the configuration; empty where there is none."""
        section = self.config.get(name)
        return section if isinstance(section, dict) else {}

    def _recognise(self) -> str:
        task, model = (printable(str(self.section(part).get("_name"))) for part in ("task", "model"))
        if task in OUR_TASKS:
            raise InputError(f"{self.path}: one of ours already (task {task}); it needs no conversion")
        if model == "wav2vec2" and ("num_mel" in self.section("model") or task == "stft_audio_pretraining"):
            return EXTRACTOR
        if any(_CLASSIFIER_PARAMETERS.match(name) for name in self.parameters):
            return CLASSIFIER
        if model in ("NeuProNet", "CNN_NPN"):
            raise InputError(
                f"{self.path}: named {model}, but its {len(self.parameters)} parameters (first: "
                f"{printable(next(iter(self.parameters)))}) are not those of the official network"
            )
        raise InputError(
            f"{self.path}: a checkpoint of stock fairseq or of another project (model {model}, task {task}), not of "
            "the official NeuProNet code"
        )
