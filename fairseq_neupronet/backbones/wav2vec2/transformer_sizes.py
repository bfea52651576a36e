"""Sizes and shares of a transformer that torch would refuse in words of its own."""

from fairseq_neupronet.errors import InputError

_SHARES = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "encoder_layerdrop",
    "dropout_input",
    "dropout_features",
)


def check_sizes(config) -> None:
    """Check a :class:`~fairseq_neupronet.models.spectrogram_wav2vec2.SpectrogramWav2Vec2Config`.

    Raises:
        InputError: naming the option.
    """
    width = ("encoder_embed_dim", config.encoder_embed_dim)
    parts = [(*width, "encoder_attention_heads"), (*width, "conv_pos_groups")]
    if config.quantize_targets:
        latent = "latent_dim" if config.latent_dim else "final_dim" if config.final_dim else "encoder_embed_dim"
        parts.append((latent, getattr(config, latent), "latent_groups"))
    for name, size, divisor in parts:
        number = getattr(config, divisor)
        if number < 1 or size % number:
            raise InputError(f"{divisor}={number} does not divide {name}={size}; choose one that does")
    for name in _SHARES:
        check_share(name, getattr(config, name))


def check_share(name: str, share: float) -> None:
    """Refuse a probability that is none.

    Raises:
        InputError: naming it.
    """
    if not 0 <= share <= 1:
        raise InputError(f"{name}={share}: give a number from 0 to 1")
