"""Spectrogram wav2vec 2.0: the profile extractor and the transformer backbone.

wav2vec 2.0 (Baevski et al., NeurIPS 2020) over mel bands instead of samples, one network for training and for use.
The convolutions are causal, span masks begin at one step, and negatives know the clips' profiles.

Letters: B clips, M mel bands, F frames, T encoder steps, C encoder width, A anchors (masked steps), N negatives.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fairseq_neupronet.backbones.wav2vec2.contrast import CodebookQuantizer, Negatives, infonce_logits, sample_negatives
from fairseq_neupronet.backbones.wav2vec2.convolutions import CausalConvolutions, output_lengths, parse_conv_spec
from fairseq_neupronet.backbones.wav2vec2.encoder import TransformerEncoder
from fairseq_neupronet.backbones.wav2vec2.span_masks import draw_masks
from fairseq_neupronet.errors import InputError

# What fixes the parameters' names and shapes; the rest of a config may differ between pretraining and use.
ARCHITECTURE_FIELDS = (
    "conv_feature_layers",
    "extractor_mode",
    "encoder_layers",
    "encoder_embed_dim",
    "encoder_ffn_embed_dim",
    "encoder_attention_heads",
    "activation_fn",
    "layer_norm_first",
    "conv_pos",
    "conv_pos_groups",
    "final_dim",
    "logit_temp",
    "quantize_targets",
    "latent_vars",
    "latent_groups",
    "latent_dim",
)
_EVALUATION_SEED = 1


@dataclass
class Encoded:
    """What the encoder makes of a batch.

    Attributes:
        x: (B, T, C) contextual steps.
        features: (B, T, C) unmasked convolutional features, the targets of the contrastive task.
        padding: (B, T) bool, True on padding.
        steps: (B,) unpadded steps, on the host; None where it was not told the frames and masking was off.
        masked: (B, T) bool, the span mask, on the host; None where masking was off.
        features_penalty: () mean square of the convolutional features.
    """

    x: Tensor
    features: Tensor
    padding: Tensor
    steps: np.ndarray | None
    masked: np.ndarray | None
    features_penalty: Tensor


@dataclass
class Randomness:
    """Where draws come from: torch's generator in training (which fairseq reseeds at each update, so that a resumed
    training draws the same), a fixed seed in evaluation, so that validation loss repeats.

    Attributes:
        masks: draws masks, and the layers to leave out.
        negatives: draws negatives; None is torch's own generator.
    """

    masks: np.random.Generator
    negatives: torch.Generator | None

    @classmethod
    def for_batch(cls, training: bool, device: torch.device) -> "Randomness":
        if training:
            return cls(np.random.default_rng(int(torch.randint(2**31, ()))), None)
        return cls(
            np.random.default_rng(_EVALUATION_SEED), torch.Generator(device=device).manual_seed(_EVALUATION_SEED)
        )


class SpectrogramWav2Vec2(nn.Module):
    """The network. Parameters bear the names of fairseq's wav2vec 2.0.

    Args:
        config: the fields of :class:`~fairseq_neupronet.config.model.SpectrogramWav2Vec2Options` as attributes.
        n_mels: M.

    Raises:
        InputError: a convolution specification that cannot be read or does not end at the encoder's width, or sizes
            that do not fit each other.
    """

    def __init__(self, config, n_mels: int):
        super().__init__()
        self.config = config
        self.conv_spec = parse_conv_spec(config.conv_feature_layers)
        width = config.encoder_embed_dim
        if self.conv_spec[-1][0] != width:
            raise InputError(
                f"conv_feature_layers ends at {self.conv_spec[-1][0]} channels and encoder_embed_dim is {width}; "
                "nothing projects between them, so make them equal"
            )
        final_dim = config.final_dim or width
        check_sizes(config)
        self.feature_extractor = CausalConvolutions(self.conv_spec, n_mels, str(config.extractor_mode))
        self.dropout_input = nn.Dropout(config.dropout_input)
        self.dropout_features = nn.Dropout(config.dropout_features)
        self.mask_emb = nn.Parameter(torch.empty(width).uniform_())
        target_dim = width
        self.quantizer = None
        if config.quantize_targets:
            target_dim = config.latent_dim or final_dim
            self.quantizer = CodebookQuantizer(
                width, config.latent_vars, config.latent_groups, target_dim, tuple(config.latent_temp)
            )
        self.project_q = nn.Linear(target_dim, final_dim)
        self.encoder = TransformerEncoder(config)
        self.final_proj = nn.Linear(width, final_dim)

    def set_num_updates(self, num_updates: int) -> None:
        """The quantiser's temperature follows the number of updates."""
        if self.quantizer is not None:
            self.quantizer.set_num_updates(num_updates)

    def _convolve(self, source: Tensor) -> Tensor:
        """(B, M, F) → features (B, T, C)."""
        scale = self.config.feature_grad_mult
        with torch.set_grad_enabled(torch.is_grad_enabled() and scale > 0):
            features = self.feature_extractor(source)
        if features.requires_grad and scale != 1.0:
            features.register_hook(lambda gradient: gradient * scale)
        return features.mT

    def encode(
        self,
        source: Tensor,
        padding_mask: Tensor,
        rng: np.random.Generator | None,
        masked: Tensor | None = None,
        frames: np.ndarray | None = None,
        masks: bool = True,
    ) -> Encoded:
        """Convolve, mask and encode.

        Args:
            source: (B, M, F).
            padding_mask: (B, F) bool.
            rng: draws the span and channel masks and, in training, the layers to leave out; None draws nothing, which
                leaves the clips whole and all layers in.
            masked: (B, T) bool, a given span mask instead of a drawn one.
            frames: (B,) unpadded frames, where the host knows them: asking a GPU makes it wait.
            masks: False leaves the clips whole.
        """
        drawn = masks and masked is None and rng is not None
        if frames is None and (drawn or masked is not None):
            frames = (~padding_mask).sum(dim=1).cpu().numpy()
        features = self._convolve(source)
        penalty = features.float().pow(2).mean()
        n_steps, steps = features.shape[1], None
        if frames is None:
            # On the device alone, so that it does not wait, and that a graph of it serves clips of any length.
            unpadded = output_lengths((~padding_mask).sum(dim=1), self.conv_spec)
            padding = torch.arange(n_steps, device=source.device) >= unpadded.unsqueeze(1)
        else:
            steps = output_lengths(frames, self.conv_spec)
            padding = _on(np.arange(n_steps) >= steps[:, None], source.device)
        x, unmasked = self.dropout_input(features), self.dropout_features(features)
        spans = channels = None
        if masked is not None:
            spans = masked.cpu().numpy()
        elif drawn:
            spans, channels = draw_masks(self.config, steps, n_steps, rng)
        if channels is not None and self.config.mask_channel_before:
            x = x.masked_fill(_on(channels, x.device).unsqueeze(1), 0.0)
        if spans is not None:
            x = torch.where(_on(spans, x.device).unsqueeze(2), self.mask_emb.to(x.dtype), x)
        if channels is not None and not self.config.mask_channel_before:
            x = x.masked_fill(_on(channels, x.device).unsqueeze(1), 0.0)
        x = self.encoder(x, padding if steps is None or (steps < n_steps).any() else None, rng)
        return Encoded(x, unmasked, padding, steps, spans, penalty)

    def contrast(
        self,
        encoded: Encoded,
        group: Tensor | None,
        randomness: Randomness,
        negatives: Negatives | None = None,
        candidate: Tensor | None = None,
    ) -> dict:
        """The contrastive task on a batch: tell each masked step's own feature among distractors (InfoNCE).

        Args:
            encoded: of :meth:`encode`, with a span mask.
            group: (B,) codes; negatives across clips come from other codes only. None: every clip its own group.
            randomness: of negatives.
            negatives: given ones instead of drawn ones.
            candidate: (B, T) bool, the steps that negatives may come from; as configured when left out.

        Returns:
            ``logits`` (A, 1 + N), the true step first; ``features_pen`` (); ``without_across`` (), how many anchors
            had no other group to draw from; with a quantiser also ``prob_perplexity``, ``code_perplexity``,
            ``num_vars`` and ``temp``.
        """
        config, device = self.config, encoded.x.device
        n_steps = encoded.x.shape[1]
        unpadded = np.arange(n_steps) < encoded.steps[:, None]
        anchors = encoded.masked & unpadded
        if group is None:
            group = torch.arange(len(encoded.x), device=device)
        if candidate is not None:
            may_be_drawn = candidate.cpu().numpy()
        else:
            may_be_drawn = unpadded if config.negatives_from_everywhere else anchors
        # Places come from the host, which drew the masks: counting them on a GPU would make it wait.
        clip, step = (_on(place, device) for place in np.nonzero(anchors))
        anchor = clip * n_steps + step
        if negatives is None:
            negatives = sample_negatives(
                clip,
                step,
                _on(may_be_drawn, device),
                group,
                config.num_negatives,
                config.cross_sample_negatives,
                generator=randomness.negatives,
            )
        targets, codebook = self._targets(encoded.features, _on(np.flatnonzero(may_be_drawn), device))
        queries = self.final_proj(encoded.x.flatten(0, 1)[anchor])
        return {
            "logits": infonce_logits(queries, targets, anchor, negatives, config.logit_temp),
            "features_pen": encoded.features_penalty,
            "without_across": negatives.n_without_across,
            **codebook,
        }

    def _targets(self, features: Tensor, places: Tensor) -> tuple[Tensor, dict]:
        """Projected (and quantised) features at these of the B · T places, zero elsewhere: (B · T, final_dim)."""
        features, codebook = features.flatten(0, 1), {}
        chosen = features[places]
        if self.quantizer is not None:
            codebook = self.quantizer(chosen)
            chosen = codebook.pop("x")
        chosen = self.project_q(chosen)
        return chosen.new_zeros(len(features), chosen.shape[-1]).index_copy(0, places, chosen), codebook


def _on(mask: np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(mask).to(device, non_blocking=True)


_SHARES = (
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "encoder_layerdrop",
    "dropout_input",
    "dropout_features",
)


def check_sizes(config) -> None:
    """Check a configuration for sizes and shares that torch would refuse in words of its own.

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
