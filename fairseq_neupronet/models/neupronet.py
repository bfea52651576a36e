"""fairseq model ``NeuProNet``: reads the config, builds the network, loads what it starts from."""

from fairseq.models import BaseFairseqModel, register_model

from fairseq_neupronet.backbones.wav2vec2.network import check_share
from fairseq_neupronet.config.model import NO_BACKBONE
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.fairseq_configs import NeuProNetConfig
from fairseq_neupronet.networks.build import build_network
from fairseq_neupronet.networks.neupronet import NeuProNet


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
            f"model.fusion=profile: with model.pooling=mean nothing uses the backbone {backbone}; set "
            "model.backbone=none, or a pooling that attends to the clip"
        )
    if cfg.gather_profiles and grouping != "in_batch":
        raise InputError(
            f"model.gather_profiles=true: model.grouping={grouping} does not group within batches; set one of them"
        )
