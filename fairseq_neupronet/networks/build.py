"""From a model's configuration to its network, for training by fairseq and for use without it."""

import math

from fairseq_neupronet.backbones.registry import build_backbone
from fairseq_neupronet.backbones.wav2vec2.backbone import TransformerBackbone
from fairseq_neupronet.config.model import NO_BACKBONE
from fairseq_neupronet.networks.auto_encoder import AutoEncoderLoss
from fairseq_neupronet.networks.fusion import build_fusion, build_head
from fairseq_neupronet.networks.gathering import ProfileBank
from fairseq_neupronet.networks.neupronet import NeuProNet
from fairseq_neupronet.networks.pooling import ProfilePooling


def build_network(config, kind: type[NeuProNet] = NeuProNet) -> NeuProNet:
    """Build the network that a configuration describes.

    Args:
        config: the fields of :class:`~fairseq_neupronet.config.model.NeuProNetOptions`, as attributes.
        kind: the class of the network.

    Raises:
        InputError: an unknown backbone, pooling, fusion or head, or sizes that one of them refuses.
    """
    width = config.decoder_embed_dim

    backbone = None
    if config.backbone != NO_BACKBONE:
        backbone = build_backbone(config.backbone, config.n_mels, width, config)
    extractor = pooling = fusion = bank = None
    if config.profiling:
        extractor = TransformerBackbone(
            config.profile_extractor, config.n_mels, width, config.final_dropout, config.apply_mask
        )
        pooling = ProfilePooling(
            str(config.pooling), config.temperature, str(config.cosine_sign), config.normalize_embeddings
        )
        fusion = build_fusion(str(config.fusion), width, config.fusion_rank)
        head = build_head(
            str(config.head),
            fusion.width,
            config.n_classes,
            config.clf_hidden_dim,
            config.clf_dropout_rate,
            fusion.branches,
        )
        bank = ProfileBank(width) if str(config.grouping) == "whole_split" else None
    else:
        head = build_head("linear", width, config.n_classes)
    return kind(
        backbone,
        head,
        extractor,
        pooling,
        fusion,
        math.inf if config.freeze_backbone else config.freeze_backbone_updates,
        math.inf if config.freeze_profile_extractor else config.freeze_profile_extractor_updates,
        config.one_pass,
        config.gather_profiles,
        str(config.grouping),
        bank,
        AutoEncoderLoss(config.n_mels, fusion.width if fusion else width) if config.auto_encoder else None,
    )
