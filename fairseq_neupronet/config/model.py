"""Options of the networks (``model.*``), and the names that they choose from."""

from dataclasses import dataclass

from fairseq_neupronet.config.option import option

NO_BACKBONE = "none"
GROUPINGS = ("in_batch", "whole_split", "none")
POOLING_NAMES = (
    "mean",
    "profile",
    "cosine",
    "dot",
    "profile+cosine",
    "profile+dot",
    "cosine+dot",
    "profile+cosine+dot",
)
COSINE_SIGNS = ("similarity", "distance")
FUSION_NAMES = ("concat", "profile", "gate", "tensor")
HEADS = ("linear", "mlp")
EXTRACTOR_MODES = ("default", "layer_norm")
ACTIVATIONS = ("relu", "gelu", "gelu_fast", "gelu_accurate", "tanh", "linear")
SELECTIONS = ("static", "uniform", "normal", "poisson")


@dataclass
class SpectrogramWav2Vec2Options:
    """Options of the spectrogram wav2vec 2.0: profile extractor, its pretraining, and one of the backbones."""

    n_mels: int | None = option(None, "mel bands; read from the manifest when unset", advanced=True)
    conv_feature_layers: str = option(
        "[(512, 5, 1, 2), (512, 5, 2, 2), (256, 5, 4, 2)]",
        "convolutions over time: a list of (dim, kernel, dilation, stride); lists, tuples, whole numbers, + and * are "
        "understood; a 3-tuple means stride 2",
    )
    extractor_mode: str = option(
        "default",
        "default: group norm after the first convolution; layer_norm: after each",
        choices=EXTRACTOR_MODES,
        advanced=True,
    )
    encoder_layers: int = option(2, "transformer layers")
    encoder_embed_dim: int = option(256, "width; the last convolution's dim as well")
    encoder_ffn_embed_dim: int = option(512, "width of the feed-forward layers")
    encoder_attention_heads: int = option(2, "attention heads")
    activation_fn: str = option("gelu", "of the feed-forward layers", choices=ACTIVATIONS, advanced=True)
    layer_norm_first: bool = option(False, "layer norm before instead of after a sub-layer", advanced=True)
    conv_pos: int = option(128, "kernel of the convolutional position embedding", advanced=True)
    conv_pos_groups: int = option(16, "groups of the convolutional position embedding", advanced=True)
    dropout: float = option(0.1, "in the transformer")
    attention_dropout: float = option(0.1, "on attention weights")
    activation_dropout: float = option(0.0, "after the feed-forward activation")
    encoder_layerdrop: float = option(0.05, "chance to leave out a layer in training")
    dropout_input: float = option(0.1, "on the convolutional features, before masking")
    dropout_features: float = option(0.1, "on the targets of the contrastive task")
    feature_grad_mult: float = option(0.1, "gradient scale of the convolutions; 0 freezes")
    mask_prob: float = option(0.65, "share of steps covered by span masks (overlaps aside)")
    mask_length: int = option(10, "steps of a span; a shorter clip takes its steps minus 1")
    mask_selection: str = option(
        "static",
        "lengths of spans: static, all mask_length; uniform, from mask_other to twice mask_length; normal, mean "
        "mask_length and deviation mask_other; poisson, mean mask_length",
        choices=SELECTIONS,
        advanced=True,
    )
    mask_other: float = option(0.0, "see mask_selection", advanced=True)
    no_mask_overlap: bool = option(False, "keep spans apart; those without room are left out", advanced=True)
    mask_min_space: int = option(1, "no_mask_overlap: unmasked steps between spans at least", advanced=True)
    mask_dropout: float = option(0.0, "share of a clip's masked steps that is unmasked again", advanced=True)
    require_same_masks: bool = option(
        False,
        "unmask steps at random until the clips of a batch have equally many masked, and channels so; true in the "
        "official code",
        advanced=True,
    )
    mask_channel_prob: float = option(0.0, "share of channels covered by span masks")
    mask_channel_length: int = option(10, "channels of a span")
    mask_channel_selection: str = option("static", "as mask_selection", choices=SELECTIONS, advanced=True)
    mask_channel_other: float = option(0.0, "as mask_other", advanced=True)
    no_mask_channel_overlap: bool = option(False, "as no_mask_overlap", advanced=True)
    mask_channel_min_space: int = option(
        1, "no_mask_channel_overlap: unmasked channels between spans at least", advanced=True
    )
    mask_channel_before: bool = option(
        False, "channels are masked before steps, so that a masked step has all of its channels", advanced=True
    )
    num_negatives: int = option(20, "negatives from the anchor's own clip")
    cross_sample_negatives: int = option(80, "negatives from clips of other profiles (of other clips without profiles)")
    negatives_from_everywhere: bool = option(
        True, "draw negatives from all unpadded steps, not from masked ones only", advanced=True
    )
    logit_temp: float = option(0.1, "temperature of the cosine similarities")
    final_dim: int = option(256, "width in which steps are compared; 0: encoder_embed_dim")
    quantize_targets: bool = option(False, "quantise the targets (Gumbel, product codebook)", advanced=True)
    latent_vars: int = option(320, "codewords in each group of the codebook", advanced=True)
    latent_groups: int = option(2, "groups of the codebook", advanced=True)
    latent_dim: int = option(0, "width of the quantised targets; 0: final_dim", advanced=True)
    latent_temp: list[float] = option(
        [2.0, 0.5, 0.999995], "temperature of the quantiser: start, end, decay a update", advanced=True
    )


@dataclass
class SmallCnnOptions:
    """Options of the backbone ``small_cnn``."""

    channels: list[int] = option([32, 64, 128], "of each block of convolution, batch norm and pooling")
    dropout: float = option(0.2, "before the embedding")


@dataclass
class NeuProNetOptions:
    """Options of the classifier ``NeuProNet``."""

    backbone: str = option(
        "spectrogram_wav2vec2",
        "spectrogram_wav2vec2, small_cnn, efficientnet-b0 … b7, resnet18/34/50, or a registered one; none: the profile "
        "branch alone",
    )
    backbone_path: str | None = option(
        None,
        "weights for the backbone: a pretraining checkpoint of ours, or a local state dict of efficientnet_pytorch or "
        "torchvision; nothing is downloaded",
    )
    transformer: SpectrogramWav2Vec2Options = option(SpectrogramWav2Vec2Options, "the spectrogram_wav2vec2 backbone")
    small_cnn: SmallCnnOptions = option(SmallCnnOptions, "the small_cnn backbone")
    apply_mask: bool = option(True, "span and channel masks on the transformers' clip embeddings in training")
    final_dropout: float = option(0.0, "before the transformers' projection")
    batch_norm_momentum: float | None = option(
        0.1, "of EfficientNet; null keeps its own .01, which spoils evaluation after short trainings", advanced=True
    )
    decoder_embed_dim: int = option(256, "width of clip and profile embeddings")
    profile_extractor_path: str | None = option(
        None, "pretraining checkpoint of ours; without it the extractor starts fresh"
    )
    profile_extractor: SpectrogramWav2Vec2Options = option(
        SpectrogramWav2Vec2Options,
        "the profile extractor; with profile_extractor_path its sizes come from that checkpoint",
    )
    grouping: str = option(
        "in_batch",
        "whose profile embeddings are pooled in training: in_batch, those of the profile's clips in the batch; "
        "whole_split, of all its clips in the split, embedded once an epoch; none, the clip's own",
        choices=GROUPINGS,
    )
    pooling: str = option("dot", "how a clip's group is pooled; + joins the official flags", choices=POOLING_NAMES)
    temperature: float = option(1.0, "of dot pooling; official: 1 transformer, 5 CNN model")
    cosine_sign: str = option(
        "similarity",
        "weight of cosine pooling: cos (official CNN model) or 1 - cos (transformer model)",
        choices=COSINE_SIGNS,
        advanced=True,
    )
    normalize_embeddings: bool = option(
        False, "with cosine pooling, L2-normalise as the official CNN model does", advanced=True
    )
    fusion: str = option("concat", "of clip and pooled embedding; profile: the pooled one alone", choices=FUSION_NAMES)
    fusion_rank: int | None = option(
        None, "tensor fusion: rank of its low-rank form; unset: the full outer product", advanced=True
    )
    head: str = option("linear", "classifier with profiles; without: linear", choices=HEADS)
    clf_hidden_dim: int = option(64, "of the mlp head; concat doubles it")
    clf_dropout_rate: float = option(0.1, "of the mlp head")
    freeze_backbone: bool = option(False, "the backbone is frozen: it keeps the weights that it starts from")
    freeze_profile_extractor: bool = option(
        False, "the profile extractor is frozen: it keeps the weights that it starts from"
    )
    freeze_backbone_updates: int = option(
        0, "updates during which the backbone is frozen; not with common.fp16 or common.bf16"
    )
    freeze_profile_extractor_updates: int = option(
        0, "updates during which the profile extractor is frozen; not with common.fp16 or common.bf16"
    )
    one_pass: bool = option(
        True,
        "the contrastive task uses the masked pass of the profile embeddings, with apply_mask; false: a pass of its "
        "own, as the official code, at twice the cost and the same expected gradient",
        advanced=True,
    )
    gather_profiles: bool = option(
        False,
        "in training with several processes, pool over the clips of a profile in all their batches",
        advanced=True,
    )
    auto_encoder: bool = option(False, "adds the auto-encoder's terms to the loss", advanced=True)
    n_mels: int | None = option(None, "mel bands; read from the manifest when unset", advanced=True)
    n_classes: int | None = option(None, "classes; read from dict.label.txt when unset", advanced=True)
    profiling: bool = option(False, "set by task.profiling", advanced=True)
