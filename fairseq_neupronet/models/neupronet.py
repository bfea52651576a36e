"""fairseq model ``NeuProNet``: reads the config, builds the network, loads what it starts from."""

from dataclasses import dataclass, field
from typing import Optional  # fairseq's argument parser reads these forms only

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel, register_model

from fairseq_neupronet.backbones.wav2vec2.network import check_share
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config
from fairseq_neupronet.networks.build import NO_BACKBONE, build_network
from fairseq_neupronet.networks.fusion import FUSIONS, HEADS
from fairseq_neupronet.networks.neupronet import GROUPINGS, NeuProNet
from fairseq_neupronet.networks.pooling import COSINE_SIGNS, POOLINGS


@dataclass
class NeuProNetConfig(FairseqDataclass):
    backbone: str = field(
        default="spectrogram_wav2vec2",
        metadata={
            "help": "spectrogram_wav2vec2, efficientnet-b0 … b7, resnet18/34/50, or a registered one; none: the "
            "profile branch alone"
        },
    )
    backbone_path: Optional[str] = field(
        default=None,
        metadata={
            "help": "weights for the backbone: a pretraining checkpoint of ours, or a local state dict of "
            "efficientnet_pytorch or torchvision; nothing is downloaded"
        },
    )
    transformer: SpectrogramWav2Vec2Config = field(
        default_factory=SpectrogramWav2Vec2Config, metadata={"help": "the spectrogram_wav2vec2 backbone"}
    )
    apply_mask: bool = field(
        default=True, metadata={"help": "span and channel masks on the transformers' clip embeddings in training"}
    )
    final_dropout: float = field(default=0.0, metadata={"help": "before the transformers' projection"})
    batch_norm_momentum: Optional[float] = field(
        default=0.1,
        metadata={"help": "of EfficientNet; null keeps its own .01, which spoils evaluation after short trainings"},
    )
    decoder_embed_dim: int = field(default=256, metadata={"help": "width of clip and profile embeddings"})
    profile_extractor_path: Optional[str] = field(
        default=None, metadata={"help": "pretraining checkpoint of ours; without it the extractor starts fresh"}
    )
    profile_extractor: SpectrogramWav2Vec2Config = field(
        default_factory=SpectrogramWav2Vec2Config,
        metadata={"help": "the profile extractor; with profile_extractor_path its sizes come from that checkpoint"},
    )
    grouping: ChoiceEnum(GROUPINGS) = field(
        default="in_batch",
        metadata={
            "help": "whose profile embeddings are pooled in training: in_batch, those of the profile's clips in "
            "the batch; whole_split, of all its clips in the split, embedded once an epoch; none, the clip's "
            "own"
        },
    )
    pooling: ChoiceEnum(list(POOLINGS)) = field(
        default="dot", metadata={"help": "how a clip's group is pooled; + joins the official flags"}
    )
    temperature: float = field(default=1.0, metadata={"help": "of dot pooling; official: 1 transformer, 5 CNN model"})
    cosine_sign: ChoiceEnum(COSINE_SIGNS) = field(
        default="similarity",
        metadata={"help": "weight of cosine pooling: cos (official CNN model) or 1 - cos (transformer model)"},
    )
    normalize_embeddings: bool = field(
        default=False, metadata={"help": "with cosine pooling, L2-normalise as the official CNN model does"}
    )
    fusion: ChoiceEnum(list(FUSIONS)) = field(
        default="concat", metadata={"help": "of clip and pooled embedding; profile: the pooled one alone"}
    )
    fusion_rank: Optional[int] = field(
        default=None, metadata={"help": "tensor fusion: rank of its low-rank form; unset: the full outer product"}
    )
    head: ChoiceEnum(HEADS) = field(default="linear", metadata={"help": "classifier with profiles; without: linear"})
    clf_hidden_dim: int = field(default=64, metadata={"help": "of the mlp head; concat doubles it"})
    clf_dropout_rate: float = field(default=0.1, metadata={"help": "of the mlp head"})
    freeze_backbone: bool = field(
        default=False, metadata={"help": "the backbone is frozen: it keeps the weights that it starts from"}
    )
    freeze_profile_extractor: bool = field(
        default=False, metadata={"help": "the profile extractor is frozen: it keeps the weights that it starts from"}
    )
    freeze_backbone_updates: int = field(
        default=0,
        metadata={"help": "updates during which the backbone is frozen; not with common.fp16 or common.bf16"},
    )
    freeze_profile_extractor_updates: int = field(
        default=0,
        metadata={"help": "updates during which the profile extractor is frozen; not with common.fp16 or common.bf16"},
    )
    one_pass: bool = field(
        default=True,
        metadata={
            "help": "the contrastive task uses the masked pass of the profile embeddings, with apply_mask; "
            "false: a pass of its own, as the official code, at twice the cost and the same expected gradient"
        },
    )
    gather_profiles: bool = field(
        default=False,
        metadata={"help": "in training with several processes, pool over the clips of a profile in all their batches"},
    )
    auto_encoder: bool = field(default=False, metadata={"help": "adds the auto-encoder's terms to the loss"})
    n_mels: Optional[int] = field(default=None, metadata={"help": "mel bands; read from the manifest when unset"})
    n_classes: Optional[int] = field(default=None, metadata={"help": "classes; read from dict.label.txt when unset"})
    profiling: bool = field(default=False, metadata={"help": "set by task.profiling"})


@register_model("NeuProNet", dataclass=NeuProNetConfig)
class NeuProNetModel(NeuProNet, BaseFairseqModel):
    """NeuProNet as fairseq's trainer wants it."""

    @classmethod
    def build_model(cls, cfg: NeuProNetConfig, task):
        _check_combination(cfg)
        return build_network(cfg, cls)


def _check_combination(cfg: NeuProNetConfig) -> None:
    """Refuse options that would have no effect, or nothing to work on, beside each other.

    Raises:
        InputError: naming both.
    """
    backbone, fusion, grouping, pooling = map(str, (cfg.backbone, cfg.fusion, cfg.grouping, cfg.pooling))
    for name in ("final_dropout", "clf_dropout_rate"):
        check_share(f"model.{name}", cfg[name])
    for network in ("backbone", "profile_extractor"):
        n_updates = cfg[f"freeze_{network}_updates"]
        if cfg[f"freeze_{network}"] and n_updates:
            raise InputError(
                f"model.freeze_{network}_updates={n_updates}: model.freeze_{network}=true freezes for the whole "
                "training; leave one of them out"
            )
    without_profiles = "set task.profiling=True, or leave it out"
    if not cfg.profiling:
        if cfg.freeze_profile_extractor:
            raise InputError(
                f"model.freeze_profile_extractor=true: without profiles there is no extractor; {without_profiles}"
            )
        if backbone == NO_BACKBONE:
            raise InputError(f"model.backbone=none: the profile branch alone needs profiles; {without_profiles}")
        if fusion != "concat":
            raise InputError(f"model.fusion={fusion}: without profiles there is nothing to fuse; {without_profiles}")
        if grouping != "in_batch":
            raise InputError(f"model.grouping={grouping}: without profiles there is no grouping; {without_profiles}")
    if backbone == NO_BACKBONE and cfg.backbone_path:
        raise InputError(f"model.backbone_path={cfg.backbone_path}: model.backbone=none has no weights; leave it out")
    if backbone == NO_BACKBONE and cfg.freeze_backbone:
        raise InputError("model.freeze_backbone=true: model.backbone=none has no weights; leave it out")
    if fusion == "profile" and backbone != NO_BACKBONE and pooling == "mean":
        raise InputError(
            f"model.fusion=profile: with model.pooling=mean nothing hears the backbone {backbone}; set "
            "model.backbone=none, or a pooling that attends to the clip"
        )
    if cfg.gather_profiles and grouping != "in_batch":
        raise InputError(
            f"model.gather_profiles=true: model.grouping={grouping} does not group within batches; set one of them"
        )
