"""The model section of an official classifier, ``NeuProNet`` or ``CNN_NPN``, as ours."""

import re
from collections.abc import Iterable

from omegaconf import DictConfig, OmegaConf

from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.conversion.networks import (
    FINETUNING_OVERRIDES,
    Settings,
    copy_network,
    find_networks,
    known_network,
)
from fairseq_neupronet.conversion.official import OfficialCheckpoint
from fairseq_neupronet.conversion.report import OptionSetter, Report
from fairseq_neupronet.conversion.shapes import Shapes, recognise_cnn
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.fairseq_configs import NeuProNetConfig

# Official flags in the order in which they act.
_POOLING_FLAGS = {
    "use_profile_attention": "profile",
    "use_cossim_attention": "cosine",
    "use_dot_softmax_attention": "dot",
}
_PARAMETERS = {"transformer": "encoder.w2v_model.", "profile_extractor": "profile_extractor.w2v_model."}
_CRASHING = ("model.tensor_fusion", "task.auto_encoder")
# Official ``npn_option``: the mean over the profile's clips in the whole split, or the method.
WHOLE_SPLIT, _IN_BATCH = 1, 2


class ClassifierConfig:
    """Builds our model section.

    Args:
        official: a checkpoint of kind ``classifier``.
        report: gets a line for each option.
        extractor: the official pretraining checkpoint to read the profile extractor's settings from, where the
            classifier's own configuration does not hold them.
        n_mels: mel bands of the data, where given; shapes tell them of every network but the CNNs.

    Raises:
        InputError: options of a wrong kind, options that contradict the parameters or that crash in the official code.
    """

    def __init__(
        self, official: OfficialCheckpoint, report: Report, extractor: OfficialCheckpoint | None, n_mels: int | None
    ):
        self.official, self.report, self.extractor = official, report, extractor
        self.shapes = Shapes(official)
        self.section = official.section("model")
        self.target = OmegaConf.structured(NeuProNetConfig())
        self.setter = OptionSetter(official.path, self.target, "model", report)
        self.is_cnn = not self.shapes.any("encoder.w2v_model.")
        self.profiling = self.shapes.any("profile_extractor.")
        self._check_flags()
        self._set_networks()
        self._set_widths()
        self._set_method()
        self._set_mels(n_mels)

    def _disagree(self, what: str) -> InputError:
        return InputError(f"{self.official.path}: configuration and parameters disagree: {what}")

    def _check_flags(self) -> None:
        path, name = self.official.path, self.section.get("_name")
        if (name == "NeuProNet" and self.is_cnn) or (name == "CNN_NPN" and not self.is_cnn):
            raise self._disagree(f"model {name}, but the backbone is {'a' if self.is_cnn else 'not a'} CNN")
        told = self.official.section("task").get("profiling", self.profiling)
        if told != self.profiling:
            raise self._disagree(
                f"task.profiling is {told}, and there are {'' if self.profiling else 'no '}profile_extractor parameters"
            )
        for key in _CRASHING:
            section, option = key.split(".")
            acts = self.profiling or option != "tensor_fusion"
            if acts and self.official.section(section).get(option):
                raise InputError(f"{path}: {key} is set, with which the official code crashes: nothing was trained so")
        self.setter.set("task.profiling", "profiling", self.profiling)
        self.setter.set("task.auto_encoder", "auto_encoder", False)

    # ---- networks --------------------------------------------------------------------------------------------

    def _set_networks(self) -> None:
        if self.is_cnn:
            self._set_cnn()
        else:
            self.setter.set("model._name", "backbone", "spectrogram_wav2vec2")
            self.target.transformer = self._network("transformer")
        if self.profiling:
            self.target.profile_extractor = self._network("profile_extractor")
        for key in (*FINETUNING_OVERRIDES, "conv_feature_layers", "encoder_embed_dim"):
            self._repeated(key)
        for key in self.section:
            if re.fullmatch(r"(no_)?mask_\w+|require_same_masks", key):
                self._repeated(key)

    def _repeated(self, key: str) -> None:
        if key in self.section and not isinstance(self.section[key], dict):
            used = self.profiling or not self.is_cnn
            uses = "the networks have theirs from model.w2v_args" if used else "of wav2vec 2.0"
            self.report.drop(f"model.{key}", self.section[key], uses)

    def _network(self, ours: str) -> DictConfig:
        parameters = _PARAMETERS[ours]
        settings = self._settings(ours, parameters)
        return copy_network(self.official, settings, parameters, f"model.{ours}", self.report)

    def _settings(self, ours: str, parameters: str) -> Settings:
        """Where one network's settings stand: in the classifier, in its extractor's own file, or in a known recipe."""
        is_extractor = ours == "profile_extractor"
        found = find_networks(self.section, "model")
        overrides = {
            f"model.{key}": (name, self.section[key])
            for key, name in FINETUNING_OVERRIDES.items()
            if key in self.section
        }
        if self.extractor is not None and (is_extractor or not found):
            return Settings(f"{self.extractor.path}: model", self.extractor.section("model"), overrides)
        if found:
            return (max if is_extractor else min)(found, key=lambda settings: settings.is_extractor)
        known = known_network(Shapes(self.official, parameters), f"model.{ours}", overrides, self.report)
        if known is None:
            raise InputError(
                f"{self.official.path}: its configuration does not say how its {ours} is built (no model.w2v_args), "
                "and its sizes are of no network that we know; give the official checkpoint that it was pretrained "
                "as: --extractor PRETRAINED.pt"
            )
        return known

    def _set_cnn(self) -> None:
        found = recognise_cnn(self.official, self.shapes)
        self.setter.set("model.cnn_arch" if "cnn_arch" in self.section else "the parameters' names", "backbone", found)
        if found.startswith("eff"):
            self.setter.set("EfficientNet, as the official code takes it", "batch_norm_momentum", None, "its own .01")

    # ---- widths ----------------------------------------------------------------------------------------------

    def _set_widths(self) -> None:
        last = "decoder.3.weight" if "decoder.3.weight" in self.shapes else "decoder.0.weight"
        n_classes = self.shapes.size(last)
        width = self._embedding_width()
        gate = bool(self.section.get("use_attention")) and self.profiling
        hidden = None
        if last == "decoder.3.weight":
            rows = self.shapes.size("decoder.0.weight")
            hidden = rows and rows // (1 if gate else 2)
        for option, ours, size in (
            ("clf_output_dim", "n_classes", n_classes),
            ("decoder_embed_dim", "decoder_embed_dim", width),
            ("clf_hidden_dim", "clf_hidden_dim", hidden),
        ):
            told = self.section.get(option)
            if option == "clf_output_dim" and told != size and self.section.get("num_classes") == size:
                option, told = "num_classes", size
            if size is None:
                if told is not None and ours != "n_classes":
                    self.setter.set(f"model.{option}", ours, told)
            elif told is not None and told != size:
                raise self._disagree(f"model.{option} is {printable(str(told))}, the parameters have {size}")
            else:
                self.setter.set("the parameters' shapes" if told is None else f"model.{option}", ours, size)
        if n_classes is None:
            raise InputError(f"{self.official.path}: 1 parameter is missing: decoder.0.weight")
        self._set_by_flags(("use_attention", "tensor_fusion"), "fusion", "gate" if gate else "concat")
        self.setter.set(
            "the parameters' names", "head", "mlp" if last == "decoder.3.weight" and self.profiling else "linear"
        )
        self.setter.copy(self.section, "model", {"clf_dropout_rate": "clf_dropout_rate"})

    def _embedding_width(self) -> int | None:
        if self.is_cnn:
            return self.shapes.size(
                "encoder.attention.cla.weight" if self.shapes.any("encoder.effnet.") else "encoder.model_ft.fc.4.weight"
            )
        projected = self.shapes.any("encoder.proj.")
        return self.shapes.size("encoder.proj.weight" if projected else "encoder.w2v_model.mask_emb")

    def _set_mels(self, n_mels: int | None) -> None:
        first = "feature_extractor.conv_layers.0.0.weight"
        seen = [self.shapes.size(f"{part}.w2v_model.{first}", 1) for part in ("encoder", "profile_extractor")]
        shaped = next((size for size in seen if size is not None), None)
        told = {
            f"{part}.num_mels": self.official.section(part)["num_mels"]
            for part in ("task", "model")
            if "num_mels" in self.official.section(part)
        }
        source, size = "the parameters' shapes", shaped
        if size is None and n_mels is not None:
            source, size = "--data", n_mels
        elif size is None and told:
            source, size = next(iter(told.items()))
        if size is None:
            raise InputError(
                f"{self.official.path}: neither parameters nor configuration tell the mel bands; give the data: "
                "--data DIR"
            )
        self.setter.set(source, "n_mels", size)
        for key, value in told.items():
            if key != source:
                _drop_mels(key, value, size, self.report)

    # ---- method ----------------------------------------------------------------------------------------------

    def _set_method(self) -> None:
        setter, section = self.setter, self.section
        kind = "CNN model" if self.is_cnn else "transformer model"
        flags = [flag for flag in _POOLING_FLAGS if section.get(flag)]
        option = section.get("npn_option", _IN_BATCH)
        if type(option) is not int or option not in (WHOLE_SPLIT, _IN_BATCH):
            raise InputError(
                f"{self.official.path}: model.npn_option is {printable(repr(option))}; the official code has 1 and 2"
            )
        pooling = "+".join(_POOLING_FLAGS[flag] for flag in flags) or "mean"
        whole_split = option == WHOLE_SPLIT and self.profiling
        self._set_by_flags(("npn_option",), "grouping", "whole_split" if whole_split else "in_batch")
        self._set_by_flags((*_POOLING_FLAGS, "npn_option"), "pooling", "mean" if option == WHOLE_SPLIT else pooling)
        setter.set(kind, "temperature", 5.0 if self.is_cnn else 1.0, "of dot pooling")
        setter.set(kind, "cosine_sign", "similarity" if self.is_cnn else "distance")
        setter.set(kind, "normalize_embeddings", self.is_cnn, "acts with cosine pooling")
        setter.set("the official contrastive task", "one_pass", False, "a pass of its own")
        setter.copy(section, "model", {"apply_mask": "apply_mask", "final_dropout": "final_dropout"})
        if "freeze_finetune_updates" in section:
            note = "ours stops the contrastive gradient too"
            networks = {"freeze_backbone_updates": not self.is_cnn, "freeze_profile_extractor_updates": self.profiling}
            for name, applies in networks.items():
                if applies:
                    setter.set("model.freeze_finetune_updates", name, section["freeze_finetune_updates"], note)

    def _set_by_flags(self, flags: Iterable[str], ours: str, value: str) -> None:
        """One option of ours stands for several official flags."""
        told = [f"model.{flag}={self.section[flag]}" for flag in flags if flag in self.section]
        self.setter.set(", ".join(told) or f"no flag of {ours}", ours, value)
        self.report.read.update(f"model.{flag}" for flag in flags)


def extractor_config(official: OfficialCheckpoint, report: Report) -> DictConfig:
    """Our model section for an official extractor.

    Raises:
        InputError: options of a wrong kind, or that contradict the parameters.
    """
    config = copy_network(official, Settings("model", official.section("model"), {}), "", "model", report)
    if "num_mels" in official.section("task"):
        _drop_mels("task.num_mels", official.section("task")["num_mels"], config.n_mels, report)
    return config


def _drop_mels(key: str, value: object, size: int, report: Report) -> None:
    # The official code has two fields for it, with defaults of their own.
    report.drop(key, value, "says it once more" if value == size else f"a default that was not used: they are {size}")
