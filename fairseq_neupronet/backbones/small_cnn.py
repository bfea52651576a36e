"""A few 3 × 3 convolutions, which some hundred to some ten thousand clips train in a minute or so on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_neupronet.backbones.registry import (
    Backbone,
    average_from_the_first_batch,
    is_one_value,
    register_backbone,
    running_statistics,
)
from fairseq_neupronet.errors import InputError


class SmallCnnBackbone(Backbone):
    """Blocks of convolution, batch norm, ReLU and 2 × 2 pooling, then mean and maximum over time, and one layer to D.

    Bands are kept apart up to the layer, which weighs each of them; frames are averaged where a clip has sound, so that
    its padding does not count. Fewer bands or frames than the poolings halve are padded with zeros. In training, a
    batch of one clip of at most 32 bands and frames passes through batch norm by the running statistics.

    Args:
        n_mels: M.
        embed_dim: D.
        channels: of each block, from the first to the last.
        dropout: share of the features before the layer that is left out in training.

    Raises:
        InputError: no block, or one without channels.
    """

    def __init__(self, n_mels: int, embed_dim: int, channels: list[int], dropout: float):
        super().__init__()
        if not channels or min(channels) < 1:
            raise InputError(f"model.small_cnn.channels={channels}: give a whole number from 1 up for each block")
        self.factor, layers, before = 2 ** len(channels), [], 1
        for width in channels:
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            before = width
        self.blocks = nn.Sequential(*layers)
        n_bands = -(-n_mels // self.factor)
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(2 * before * n_bands, embed_dim)
        average_from_the_first_batch(self)
        # Convolutions run faster so on a CPU; the numbers are the same.
        self.to(memory_format=torch.channels_last)

    def forward(self, source: Tensor, padding_mask: Tensor) -> Tensor:
        missing = [-size % self.factor for size in source.shape[1:]]
        image = F.pad(source, (0, missing[1], 0, missing[0])).unsqueeze(1)
        if self.training and is_one_value(image):
            with running_statistics(self.blocks):
                maps = self.blocks(image)
        else:
            maps = self.blocks(image)
        # A step of the maps counts by the share of its frames that are sound.
        sound = F.pad((~padding_mask).to(maps.dtype), (0, missing[1]))
        share = F.avg_pool1d(sound.unsqueeze(1), self.factor).unsqueeze(1)  # (B, 1, 1, F / factor)
        mean = (maps * share).sum(dim=3) / share.sum(dim=3).clamp(min=1e-6)
        # The maps are never negative.
        most = (maps * (share > 0)).amax(dim=3)
        return self.projection(self.dropout(torch.cat([mean, most], dim=1).flatten(1)))


@register_backbone("small_cnn")
def build(n_mels: int, embed_dim: int, config) -> SmallCnnBackbone:
    return SmallCnnBackbone(n_mels, embed_dim, list(config.small_cnn.channels), config.small_cnn.dropout)
