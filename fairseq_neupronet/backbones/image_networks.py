"""EfficientNet and ResNet, networks made for images, on spectrograms."""

import torch
import torch.nn.functional as F
from efficientnet_pytorch import EfficientNet
from torch import Tensor, nn

from fairseq_neupronet.backbones import lean_mbconv
from fairseq_neupronet.backbones.registry import Backbone, is_one_value, register_backbone, running_statistics

_LEAST_SIZE = 32  # every variant halves both axes five times


class EfficientNetBackbone(Backbone):
    """EfficientNet features, mean over frequency, 1×1 convolution to D, sigmoid, mean over time.

    EfficientNet-B0 … B7 (Tan and Le, ICML 2019), by efficientnet_pytorch.

    Under 32 bands or frames the input is padded with zeros to so many. In training, a batch of one clip that is no
    larger passes through batch norm by the running statistics, and leaves them as they are.

    Args:
        variant: ``efficientnet-b0`` … ``efficientnet-b7``.
        embed_dim: D.
        batch_norm_momentum: weight of a new batch in the running statistics. The library's own .01 leaves them near
            their initial values after a short training, and evaluation useless; None keeps it.
    """

    def __init__(self, variant: str, embed_dim: int, batch_norm_momentum: float | None):
        super().__init__()
        self.effnet = EfficientNet.from_name(variant, in_channels=1, include_top=False)
        self.effnet.set_swish(memory_efficient=False)
        if batch_norm_momentum is not None:
            for module in self.effnet.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = batch_norm_momentum
        self.projection = nn.Conv2d(self.effnet._conv_head.out_channels, embed_dim, kernel_size=1)
        # Depthwise convolutions run about twice as fast so on CPU; the numbers are the same.
        self.to(memory_format=torch.channels_last)

    def forward(self, source: Tensor, padding_mask: Tensor) -> Tensor:
        short = [max(0, _LEAST_SIZE - size) for size in source.shape[1:]]
        source = F.pad(source, (0, short[1], 0, short[0]))
        features = self._extract_features(source.transpose(1, 2).unsqueeze(1))
        by_time = self.projection(features.mean(dim=3, keepdim=True))
        return torch.sigmoid(by_time).mean(dim=(2, 3))

    def _extract_features(self, image: Tensor) -> Tensor:
        if self.training and is_one_value(image):
            with running_statistics(self.effnet):
                return self.effnet.extract_features(image)
        lean = self.training and torch.is_grad_enabled() and image.device.type == "cpu"
        if lean and image.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
            return lean_mbconv.extract_features(self.effnet, image)
        return self.effnet.extract_features(image)

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From a state dict of efficientnet_pytorch: the colour channels of the first convolution are averaged."""
        adapted = {f"effnet.{name}": value for name, value in state.items()}
        stem = adapted.get("effnet._conv_stem.weight")
        if stem is not None:
            adapted["effnet._conv_stem.weight"] = stem.mean(dim=1, keepdim=True)
        return adapted


@register_backbone(*(f"efficientnet-b{size}" for size in range(8)))
def build_efficientnet(n_mels: int, embed_dim: int, config) -> EfficientNetBackbone:
    return EfficientNetBackbone(config.backbone, embed_dim, config.batch_norm_momentum)


_RESNETS = ("resnet18", "resnet34", "resnet50")


class ResNetBackbone(Backbone):
    """ResNet on the spectrogram repeated to three channels, then two dropout-linear-ReLU layers to D.

    ResNet-18, -34 and -50 (He et al., CVPR 2016), by torchvision.

    The image is (3, M, F), mels as rows: of all backbones NEUPRONET.md section 3 transposes EfficientNet's input alone.
    Parameters cannot tell, since kernels are square and the features are averaged over both axes. In training, a batch
    of one clip of at most 32 bands and frames passes through batch norm by the running statistics, and leaves them.
    """

    def __init__(self, variant: str, embed_dim: int):
        from torchvision import models  # two seconds that other backbones need not wait for

        super().__init__()
        self.resnet = getattr(models, variant)(weights=None)
        self.resnet.fc = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(self.resnet.fc.in_features, embed_dim),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(embed_dim, embed_dim),
            nn.ReLU(),
        )

    def forward(self, source: Tensor, padding_mask: Tensor) -> Tensor:
        image = source.unsqueeze(1).expand(-1, 3, -1, -1)
        if self.training and is_one_value(image):
            with running_statistics(self.resnet):
                return self.resnet(image)
        return self.resnet(image)

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From a state dict of torchvision, whose three input channels see the same spectrogram."""
        return {f"resnet.{name}": value for name, value in state.items()}


@register_backbone(*_RESNETS)
def build_resnet(n_mels: int, embed_dim: int, config) -> ResNetBackbone:
    return ResNetBackbone(config.backbone, embed_dim)
