"""Networks that the official recipes build, for checkpoints that do not say how theirs is built.

Sizes can be read from parameters; strides, dilations and attention heads leave no trace in them. A network of the sizes
of a known one is believed to be it, which the report says; another one stays unknown.
"""

from fairseq_neupronet.conversion.networks import Settings, Shapes
from fairseq_neupronet.conversion.report import Report

# Settings of the authors' extractors, NEUPRONET.md section 3, and of the reference checkpoints' one, by what is known
# of them; the options that they leave out are read from shapes or are the authors' alike.
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
