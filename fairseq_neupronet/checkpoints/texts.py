"""Texts of a configuration that fairseq's own models evaluate as Python: which they are, and what they may hold."""

import ast
import math
import warnings

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
_LARGEST_PRODUCT = 1 << 20  # of all numbers of a text that multiplies: bounds what a repetition allocates
_LITERAL_NODES = (
    ast.Expression,
    ast.Constant,
    ast.Tuple,
    ast.List,
    ast.Dict,
    ast.UnaryOp,
    ast.USub,
    ast.BinOp,
    ast.Add,
    ast.Mult,
    ast.Load,
)


def is_literal(text: str) -> bool:
    """Whether a text is numbers, words in quotes, ``True``, ``False``, ``None``, lists, tuples and mappings of them,
    joined by ``+`` and ``*`` at most; nothing is evaluated."""
    if len(text) > _LONGEST:
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on a stranger's text
            nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    if not all(isinstance(node, _LITERAL_NODES) for node in nodes):
        return False
    if not any(isinstance(node, ast.Mult) for node in nodes):
        return True
    numbers = [abs(node.value) for node in nodes if isinstance(node, ast.Constant) and type(node.value) is int]
    return math.prod(max(number, 1) for number in numbers) <= _LARGEST_PRODUCT
