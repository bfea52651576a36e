"""Our transformer encoder against fairseq's own, and a training step against the one that fairseq's encoder made."""

import numpy as np
import pytest
import tiny
import torch
import training_step
from fairseq.models.wav2vec.wav2vec2 import TransformerEncoder as FairseqEncoder
from fairseq.models.wav2vec.wav2vec2 import Wav2Vec2Config, make_conv_pos
from official import GOLDEN
from omegaconf import OmegaConf
from torch import nn

from fairseq_neupronet.backbones.wav2vec2.backbone import TransformerBackbone
from fairseq_neupronet.backbones.wav2vec2.encoder import PositionalConvolution, TransformerEncoder
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config

SIZES = {
    "encoder_layers": 2,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 4,
    "conv_pos": 8,
    "conv_pos_groups": 2,
}
STILL = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "encoder_layerdrop": 0.0}


def encoders(**options):
    """fairseq's and ours with the same weights, none of them as it began, in float64."""
    options = SIZES | STILL | options
    torch.manual_seed(0)
    theirs = FairseqEncoder(Wav2Vec2Config(**options)).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    ours = TransformerEncoder(OmegaConf.merge(OmegaConf.structured(SpectrogramWav2Vec2Config()), options)).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def clips(lengths: list[int], width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Steps (B, T, C) whose padding is not zero, and where it is (B, T)."""
    x = torch.randn(len(lengths), max(lengths), width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("lengths", [[11, 1, 2, 7], [9, 9], [1]])
@pytest.mark.parametrize("layer_norm_first", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation_fn": "gelu_accurate", "conv_pos": 128},
        {"activation_fn": "gelu_fast", "encoder_attention_heads": 1, "conv_pos_groups": 16},
        {"activation_fn": "relu", "encoder_layers": 3, "conv_pos": 9},
        {"activation_fn": "tanh", "encoder_layers": 0},
        {"activation_fn": "linear", "encoder_attention_heads": 16},
    ],
)
def test_outputs_and_gradients_are_fairseqs(options, layer_norm_first, lengths, training):
    theirs, ours = (each.train(training) for each in encoders(**options, layer_norm_first=layer_norm_first))
    x, padding = clips(lengths)
    mask, kept = (padding if padding.any() else None), ~padding.unsqueeze(2)
    weights = torch.randn_like(x) * kept
    results = []
    for encode in (lambda given: theirs(given.clone(), padding_mask=mask)[0], lambda given: ours(given, mask)):
        given = x.clone().requires_grad_()
        output = encode(given)
        (output * weights).sum().backward()
        results.append((output * kept, given.grad))
    # fairseq's gelu, the default, computes in float32.
    close = {"rtol": 1e-9, "atol": 1e-9} if "activation_fn" in options else {"rtol": 1e-6, "atol": 2e-6}
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **close)
    for (name, expected), found in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, **close, msg=name)


def test_in_float32_they_agree_to_a_millionth():
    theirs, ours = (each.float().eval() for each in encoders())
    x, padding = clips([13, 6, 13])
    with torch.no_grad():
        expected, found = theirs(x.float(), padding_mask=padding)[0], ours(x.float(), padding)
    torch.testing.assert_close(found[~padding], expected[~padding], atol=1e-6, rtol=1e-6)


def test_parameters_bear_fairseqs_names_in_its_order():
    theirs, ours = encoders()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]


def test_parameters_begin_as_fairseqs_do():
    options = SIZES | STILL | {"encoder_embed_dim": 64, "encoder_ffn_embed_dim": 128, "conv_pos": 32}
    theirs = FairseqEncoder(Wav2Vec2Config(**options))
    ours = TransformerEncoder(OmegaConf.merge(OmegaConf.structured(SpectrogramWav2Vec2Config()), options))
    for (name, expected), found in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        n_numbers = expected.numel() ** 0.5
        spread = float(expected.detach().std())
        assert abs(float((found - expected).detach().mean())) <= 6 * spread / n_numbers, name
        assert float(found.detach().std()) == pytest.approx(spread, rel=6 / n_numbers), name


@pytest.mark.parametrize("taps", [1, 7, 8, 128])
@pytest.mark.parametrize("steps", [1, 2, 4, 5, 16, 70])
def test_the_position_embedding_over_reachable_taps_is_fairseqs(taps, steps):
    torch.manual_seed(taps * steps)
    official = make_conv_pos(16, taps, 4).double()
    ours = nn.ModuleList([PositionalConvolution(16, taps, 4)]).double()
    ours.load_state_dict(official.state_dict())
    x = torch.randn(3, 16, steps, dtype=torch.float64)
    weights = torch.randn(3, 16, steps, dtype=torch.float64)
    results = []
    for module, parameters in ((official, official.parameters()), (ours[0], ours.parameters())):
        copied = x.clone().requires_grad_()
        output = module(copied)
        (output * weights).sum().backward()
        results.append((output, copied.grad, *(parameter.grad for parameter in parameters)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_training_step_is_the_one_that_fairseqs_encoder_made():
    found, golden = training_step.trained(), np.load(GOLDEN / "training_step.npz")
    assert found.keys() == set(golden)
    for part, expected in golden.items():
        if part.endswith("/names"):
            assert found[part].tolist() == expected.tolist()
        else:
            np.testing.assert_allclose(found[part], expected, rtol=1e-5, atol=1e-7, err_msg=part)


# ---- what training draws -------------------------------------------------------------------------------------------


def same_dropout(encode, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(3)
    return encode(x)


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "activation_dropout"])
@pytest.mark.parametrize("layer_norm_first", [False, True])
def test_each_dropout_spreads_outputs_as_fairseqs_does(name, layer_norm_first):
    """Mean and deviation of many draws: the draws themselves are laid out differently."""
    theirs, ours = encoders(**{name: 0.4}, layer_norm_first=layer_norm_first)
    x, _ = clips([5])
    many = x.expand(4000, -1, -1)
    with torch.no_grad():
        expected, found = theirs.train()(many.clone())[0], ours.train()(many)
        assert not torch.equal(found[0], found[1])
        deviation = expected.std(dim=0)
        assert (found.mean(dim=0) - expected.mean(dim=0)).abs().max() < (6 * deviation / 4000**0.5).max()
        torch.testing.assert_close(found.std(dim=0), deviation, rtol=0.12, atol=1e-3)
        assert torch.equal(same_dropout(ours, x), same_dropout(ours, x))
        assert torch.equal(ours.eval()(many[:2])[0], ours(many[:2])[1])


def test_layers_are_left_out_by_the_generator_that_is_given():
    _, ours = encoders(encoder_layers=4, encoder_layerdrop=0.5)
    x, _ = clips([6, 6])
    ran = []
    for number, layer in enumerate(ours.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))

    def layers_of(rng) -> list[int]:
        ran.clear()
        ours(x, rng=rng)
        return list(ran)

    ours.train()
    np.random.seed(5)
    torch.manual_seed(5)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    runs = [layers_of(np.random.default_rng(seed)) for seed in range(200)]
    assert runs == [layers_of(np.random.default_rng(seed)) for seed in range(200)]
    assert (before[0] == np.random.get_state()[1]).all() and torch.equal(before[1], torch.get_rng_state())
    for number in range(4):
        assert 60 < sum(number in run for run in runs) < 140
    assert layers_of(None) == [0, 1, 2, 3]
    ours.eval()
    assert layers_of(np.random.default_rng(0)) == [0, 1, 2, 3]


@pytest.mark.parametrize("apply_mask", [False, True])
def test_a_backbone_in_training_leaves_layers_out_by_the_updates_seed(apply_mask):
    config = OmegaConf.merge(
        OmegaConf.structured(SpectrogramWav2Vec2Config()),
        tiny.TRANSFORMER,
        {"encoder_layers": 6, "encoder_layerdrop": 0.5, "dropout": 0.0, "attention_dropout": 0.0},
    )
    model = TransformerBackbone(config, tiny.N_MELS, 16, 0.0, apply_mask).train()
    ran = []
    for number, layer in enumerate(model.network.encoder.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))

    def layers_of(seed: int) -> tuple[int, ...]:
        ran.clear()
        torch.manual_seed(seed)
        np.random.seed(len(layers))
        model(torch.ones(2, tiny.N_MELS, 40), torch.zeros(2, 40, dtype=torch.bool))
        return tuple(ran)

    layers = []
    for seed in range(8):
        layers.append(layers_of(seed))
    assert len(set(layers)) > 3
    assert [layers_of(seed) for seed in range(8)] == layers


def test_an_unknown_activation_is_refused():
    config = OmegaConf.to_container(OmegaConf.structured(SpectrogramWav2Vec2Config()), enum_to_str=True)
    with pytest.raises(InputError, match="activation_fn=swish is not known; known are gelu, "):
        TransformerEncoder(OmegaConf.create(config | {"activation_fn": "swish"}))
