"""Texts of a configuration that fairseq's own models evaluate as Python: which they are, and what they may hold."""

import ast
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairseq_neupronet.backbones.wav2vec2.convolutions import parse_conv_spec
from fairseq_neupronet.checkpoints.plain import printable
from fairseq_neupronet.errors import InputError

# Fields handed to eval, eval_bool or eval_str_list in fairseq 0.12.3.1; conv_feature_layers and adam_betas are parsed
# by grammars of their own.
EVALUATED_FIELDS = {
    "adamax_betas",
    "lamb_betas",
    "adafactor_eps",
    "adaptive_input_cutoff",
    "adaptive_softmax_cutoff",
    "character_filters",
    "conv_aggregator_layers",
    "decoder_attention",
    "decoder_layers",
    "downsample",
    "encoder_attention",
    "encoder_layers",
    "feature_encoder_spec",
    "gated_attention",
    "left_pad_source",
    "left_pad_target",
    "pipeline_balance",
    "pipeline_decoder_balance",
    "pipeline_decoder_devices",
    "pipeline_devices",
    "pipeline_encoder_balance",
    "pipeline_encoder_devices",
    "pretrained",
    "project_input",
    "self_attention",
    "wer_args",
}
_LONGEST = 4096
_LONGEST_BETAS = 100


def is_literal(text: str) -> bool:
    """Whether a text is numbers, words in quotes, ``True``, ``False``, ``None``, lists, tuples, sets and mappings of
    them; nothing is evaluated."""
    if len(text) > _LONGEST:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on a text of unknown origin
            ast.literal_eval(text.strip())
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
    return True


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of a nested configuration, in its order; lists and empty sections are values."""
    if isinstance(config, dict) and config:
        for key, value in config.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, config


def check_texts(config: dict, path: Path) -> None:
    """Look at every text of a configuration for what a library would evaluate.

    Raises:
        InputError: an interpolation or resolver (``${…}``), or a convolution specification, betas or another text
            that fairseq evaluates and that is more than a literal; names the key.
    """
    for key, value in leaves(config):
        where = f"{path}: configuration key {printable(key)}"
        values = value if isinstance(value, list | tuple) else [value]
        if any("${" in text for text in (key, *_texts(values))):
            raise InputError(
                f"{where} holds a resolver (${{…}}), which the configuration library would evaluate; official training "
                "saves none, so do not trust the file"
            )
        if key.endswith("conv_feature_layers") and value is not None:
            try:
                parse_conv_spec(value)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
        if key.endswith("adam_betas") and value is not None:
            read_betas(value, where)
        if key.rpartition(".")[2] in EVALUATED_FIELDS and not all(map(is_literal, _texts(values))):
            raise InputError(
                f"{where} is {printable(repr(value), 60)}, which is more than numbers and lists of them; fairseq would "
                "evaluate it, so do not trust the file"
            )


def _texts(values: list | tuple) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from (key for key in value if isinstance(key, str))
            yield from _texts(list(value.values()))
        elif isinstance(value, list | tuple):
            yield from _texts(value)


def read_betas(value: Any, where: str) -> tuple[float, float]:
    """Adam's betas from a text such as ``(0.9, 0.98)``, which fairseq would evaluate as Python, or from a list.

    Raises:
        InputError: anything but two numbers from 0 to below 1.
    """
    try:
        return parse_betas(value)
    except InputError:
        raise InputError(
            f"{where} is {printable(repr(value), 60)}, which is not two numbers from 0 to below 1, as (0.9, 0.98); it "
            "was not evaluated"
        ) from None


def parse_betas(betas) -> tuple[float, float]:
    """Two numbers from 0 to below 1, from a list or from a text such as ``(0.9, 0.98)``, which fairseq would evaluate.

    Raises:
        InputError: anything else.
    """
    found = betas
    if isinstance(betas, str) and len(betas) <= _LONGEST_BETAS:
        try:
            found = ast.literal_eval(betas)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found = None
    try:
        first, second = (float(beta) for beta in found)
    except (TypeError, ValueError):
        first = second = math.nan
    if not (0 <= first < 1 and 0 <= second < 1):
        raise InputError(f"optimizer.adam_betas={betas!r}: two numbers from 0 to below 1 are wanted, as (0.9, 0.98)")
    return first, second
