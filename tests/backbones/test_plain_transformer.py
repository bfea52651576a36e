"""The transformer of a model in use against the one of training, whose encoder is fairseq's."""

import pytest
import tiny
import torch
from omegaconf import OmegaConf

from fairseq_neupronet.backbones.wav2vec2.backbone import TransformerBackbone
from fairseq_neupronet.backbones.wav2vec2.encoder import PlainTransformer
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config


def config(**options):
    return OmegaConf.merge(OmegaConf.structured(SpectrogramWav2Vec2Config()), tiny.TRANSFORMER, options)


@pytest.mark.parametrize("embed_dim", [16, 24])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "extractor_mode": "layer_norm",
            "layer_norm_first": True,
            "activation_fn": "gelu_accurate",
            "encoder_layers": 3,
        },
        {"layer_norm_first": True, "activation_fn": "relu", "conv_pos": 128},
        {"extractor_mode": "layer_norm", "activation_fn": "tanh", "quantize_targets": True, "conv_pos": 9},
        {"activation_fn": "linear", "encoder_attention_heads": 4, "conv_feature_layers": "[(16,5,4,2)]"},
    ],
)
def test_the_same_numbers_as_in_training(options, embed_dim):
    torch.manual_seed(0)
    trained = TransformerBackbone(config(**options), tiny.N_MELS, embed_dim, 0.1, True).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    plain = PlainTransformer(config(**options), tiny.N_MELS, embed_dim).eval()
    plain.load_state_dict(trained.state_dict())
    frames = torch.tensor([50, 1, 2, 33, 49])
    padding = torch.arange(50) >= frames[:, None]
    source = torch.randn(5, tiny.N_MELS, 50).masked_fill(padding.unsqueeze(1), 0.0)
    with torch.no_grad():
        torch.testing.assert_close(plain(source, padding), trained(source, padding), atol=2e-6, rtol=1e-5)


def test_an_unknown_activation_is_refused():
    plain = OmegaConf.to_container(config(), enum_to_str=True)
    with pytest.raises(InputError, match="activation_fn=swish"):
        PlainTransformer(OmegaConf.create(plain | {"activation_fn": "swish"}), tiny.N_MELS, 16)
