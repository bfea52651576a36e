"""``small_cnn``: its numbers against loops over clips, bands and steps."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from fairseq_neupronet.backbones import build_backbone
from fairseq_neupronet.errors import InputError


def build(n_mels, channels=(4, 6), dropout=0.0):
    sizes = SimpleNamespace(channels=channels, dropout=dropout)
    config = SimpleNamespace(small_cnn=sizes, batch_norm_momentum=0.1, backbone_path=None)
    return build_backbone("small_cnn", n_mels, 5, config)


def by_hand(backbone, clip, length):
    """A clip (M, F), of which ``length`` frames are sound, step by step."""
    maps = clip[None, None]
    for place, layer in enumerate(backbone.blocks):
        if isinstance(layer, torch.nn.Conv2d):
            norm = backbone.blocks[place + 1]
            maps = F.conv2d(maps, layer.weight, padding=1)
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            maps = (maps - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
            maps = F.max_pool2d(maps.clamp(min=0), 2)
    maps = maps[0]
    shares = [max(0, min(4, length - 4 * step)) / 4 for step in range(maps.shape[2])]
    mean = sum(share * maps[:, :, step] for step, share in enumerate(shares)) / sum(shares)
    most = torch.stack([maps[:, :, step] for step, share in enumerate(shares) if share]).amax(0)
    features = torch.cat([mean.flatten(), most.flatten()])
    return backbone.projection.weight @ features + backbone.projection.bias


def test_the_embedding_is_that_of_the_definition():
    torch.manual_seed(1)
    backbone = build(8)
    with torch.no_grad():
        for _ in range(5):
            backbone(torch.randn(16, 8, 20), torch.zeros(16, 20, dtype=torch.bool))
    backbone.double().eval()
    source, lengths = torch.randn(3, 8, 20, dtype=torch.float64), [20, 13, 3]
    for clip, length in zip(source, lengths, strict=True):
        clip[:, length:] = 0
    mask = torch.arange(20) >= torch.tensor(lengths)[:, None]
    expected = torch.stack([by_hand(backbone, clip, n) for clip, n in zip(source, lengths, strict=True)])
    assert torch.allclose(backbone(source, mask), expected, atol=1e-12)


@pytest.mark.parametrize(("n_mels", "n_frames"), [(40, 64), (1, 1), (7, 13)])
def test_any_number_of_bands_and_frames_will_do(n_mels, n_frames):
    backbone = build(n_mels, (4, 6, 8)).eval()
    embedding = backbone(torch.randn(2, n_mels, n_frames), torch.zeros(2, n_frames, dtype=torch.bool))
    assert embedding.shape == (2, 5) and embedding.isfinite().all()


def test_its_size_is_that_of_the_fields():
    sizes = [sum(each.numel() for each in build(40, channels).parameters()) for channels in ((32, 64, 128), (8,))]
    norms = 2 * (32 + 64 + 128)
    convolutions = 9 * (32 + 32 * 64 + 64 * 128)
    assert sizes == [convolutions + norms + (2 * 128 * 5 + 1) * 5, 9 * 8 + 16 + (2 * 8 * 20 + 1) * 5]


@pytest.mark.parametrize("channels", [[], [8, 0]])
def test_blocks_without_channels_are_refused(channels):
    with pytest.raises(InputError, match=r"model.small_cnn.channels=\[.*give a whole number from 1 up"):
        build(8, channels)
