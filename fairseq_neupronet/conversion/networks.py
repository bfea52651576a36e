"""The spectrogram wav2vec 2.0 networks of an official checkpoint: options and sizes.

Sizes come from the parameters' shapes, and what the configuration says of them has to agree: a network is never built
larger than the file is. Strides, dilations, heads and probabilities leave no trace in shapes; only the configuration
knows them.
"""

from dataclasses import dataclass, field

from omegaconf import OmegaConf

from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
from fairseq_neupronet.conversion.official import EXTRACTOR, OfficialCheckpoint, Shapes
from fairseq_neupronet.conversion.option_rows import Row
from fairseq_neupronet.conversion.report import Report, TableRun
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.fairseq_configs import SpectrogramWav2Vec2Config

# Networks that the official recipes build, for checkpoints that do not say how theirs is built. Strides, dilations and
# attention heads leave no trace in sizes: a network of the sizes of a known one is believed to be it, and the report
# says so. These are the settings of the authors' extractors (NEUPRONET.md, section 3) and of the reference checkpoints'
# one; what they leave out is read from shapes, or is the same in all.
_KNOWN = {
    "the official recipe of 128 mels": {
        "conv_feature_layers": "[(512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]",
        "encoder_layers": 2,
        "encoder_embed_dim": 256,
        "encoder_ffn_embed_dim": 512,
        "encoder_attention_heads": 2,
        "num_negatives": 20,
        "cross_sample_negatives": 80,
        "dropout_features": 0.1,
    },
    "the official recipe of 192 mels": {
        "conv_feature_layers": "[(512, 5, 1, 1), (512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]",
        "encoder_layers": 2,
        "encoder_embed_dim": 256,
        "encoder_ffn_embed_dim": 512,
        "encoder_attention_heads": 2,
        "num_negatives": 0,
        "cross_sample_negatives": 100,
        "dropout_features": 0.3,
    },
    "the reference checkpoints": {
        "conv_feature_layers": "[(64, 3, 1, 1), (64, 3, 2, 2)]",
        "encoder_layers": 2,
        "encoder_embed_dim": 64,
        "encoder_ffn_embed_dim": 128,
        "encoder_attention_heads": 4,
        "num_negatives": 5,
        "cross_sample_negatives": 5,
        "dropout_features": 0.0,
    },
}
_SIZES = ("encoder_layers", "encoder_embed_dim", "encoder_ffn_embed_dim")


@dataclass
class Settings:
    """Where a network's settings stand in the official configuration.

    Attributes:
        prefix: dotted key of the section.
        section: the section.
        overrides: options of the fine-tuning that are laid over it, by official key, as (our name, value).
        task: the task's section, where the network is a checkpoint of its own.
    """

    prefix: str
    section: dict
    overrides: dict[str, tuple[str, object]] = field(default_factory=dict)
    task: dict = field(default_factory=dict)

    @property
    def is_extractor(self) -> bool:
        """Whether the key names the profile extractor; the official one serves both networks."""
        return "profile" in self.prefix or "npn" in self.prefix


def find_networks(section: dict, prefix: str) -> list[Settings]:
    """The sections within a section that say how a spectrogram wav2vec 2.0 is built."""
    found = []
    for key, value in section.items():
        if isinstance(value, dict):
            if {"conv_feature_layers", "encoder_attention_heads"} <= value.keys():
                found.append(Settings(f"{prefix}.{key}", value))
            found += find_networks(value, f"{prefix}.{key}")
    return found


class NetworkOptions(TableRun):
    """Converts the settings of one spectrogram wav2vec 2.0.

    Args:
        official: the checkpoint, for messages and shapes.
        settings: the network's.
        report: gets a line for each option.
        parameters: what the network's parameter names begin with, e.g. ``encoder.w2v_model.``.
        ours: what messages call our section, e.g. ``model.transformer``.

    Attributes:
        model: our section.

    Raises:
        InputError: options of a wrong kind; sizes that differ from the parameters'.
    """

    def __init__(
        self,
        official: OfficialCheckpoint,
        settings: Settings,
        report: Report,
        parameters: str = "",
        ours: str = "model",
    ):
        section = dict(settings.section)
        if "conv_feature_layers" in section:
            section["conv_feature_layers"] = str(parse_conv_spec(section["conv_feature_layers"]))
        target = OmegaConf.create({"model": OmegaConf.structured(SpectrogramWav2Vec2Config())})
        config = {"model": section, "task": settings.task}
        super().__init__(official.path, EXTRACTOR, config, target, report)
        self.prefix, self.ours, self.shapes = settings.prefix, ours, Shapes(official, parameters)
        self.model = target.model
        self.run("network")
        for key, (name, value) in settings.overrides.items():
            self.set(key, f"model.{name}", value, "laid over the extractor's own")
        self._fit_sizes()

    def official_name(self, official: str) -> str:
        """An option of the network by the section in which it stands."""
        return self.prefix + official.removeprefix("model") if official.startswith("model.") else official

    def our_name(self, ours: str) -> str:
        """The same among ours."""
        return self.ours + ours.removeprefix("model")

    def built_in(self, row: Row) -> None:
        """Options that ours does not have, since they always have one value."""
        for key, fixed in zip(row.keys, row.each, strict=True):
            if self.has(key):
                value, differs = self.value(key), f"differs: ours always has {fixed!r}"
                self.report.drop(
                    self.official_name(key), value, "built into ours with this value" if value == fixed else differs
                )

    def mels(self, row: Row) -> None:
        """Mel bands, which the task of an extractor's own checkpoint says once more."""
        for key in filter(self.has, row.keys):
            drop_mels(key, self.value(key), self.shapes.network_sizes().get("n_mels", self.model.n_mels), self.report)

    def _disagree(self, key: str, told: str) -> InputError:
        return InputError(f"{self.file}: configuration and parameters disagree: {self.official_name(key)} {told}")

    def _fit_sizes(self) -> None:
        for name, size in self.shapes.network_sizes().items():
            key = "model.num_mel" if name == "n_mels" else f"model.{name}"
            if self.value(key) is None or (name == "final_dim" and self.model.final_dim == 0):
                self.set("the parameters' shapes", f"model.{name}", size)
            elif self.model[name] != size:
                raise self._disagree(key, f"is {self.model[name]}, the parameters have {size}")
        key = "model.conv_feature_layers"
        if not self.has(key):
            raise InputError(
                f"{self.file}: its configuration has no {self.official_name(key)}, and strides cannot be read from "
                "parameters"
            )
        found, told = (
            self.shapes.convolutions(),
            [layer[:2] for layer in parse_conv_spec(self.model.conv_feature_layers)],
        )
        if found and told != found:
            raise self._disagree(key, f"has (dim, kernel) {told}, the parameters have {found}")


def known_network(shapes: Shapes, ours: str, overrides: dict, report: Report) -> Settings | None:
    """The settings of the known network that has these sizes; None where there is none.

    Args:
        shapes: of the network's parameters.
        ours: our section for it, e.g. ``model.profile_extractor``.
        overrides: options of the fine-tuning, as :class:`Settings` holds them.
        report: gets a line that says what is believed.
    """
    sizes, quantizer = shapes.network_sizes(), shapes.quantizer_sizes()
    for name, network in _KNOWN.items():
        alike = all(sizes.get(size) == network[size] for size in _SIZES)
        if alike and shapes.has_convolutions(network["conv_feature_layers"]):
            report.note(
                f"{ours}: OFFICIAL.pt does not say how it is built; its sizes are those of {name}, so its strides, "
                "dilations, attention heads, order of layer norms and activation are believed to be too; --extractor "
                "PRETRAINED.pt tells for certain"
            )
            return Settings(name, network | {"extractor_mode": shapes.extractor_mode()} | quantizer, overrides)
    return None


def drop_mels(key: str, value: object, size: int, report: Report) -> None:
    """Report a field for mel bands that was not used: the official code has two, with defaults of their own."""
    report.drop(key, value, "says it once more" if value == size else f"a default that was not used: they are {size}")
