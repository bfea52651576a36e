"""ResNet-18/34/50 (He et al., CVPR 2016) on spectrograms, by torchvision."""

from torch import Tensor, nn

from fairseq_neupronet.backbones.registry import Backbone, is_one_value, register_backbone, running_statistics

_VARIANTS = ("resnet18", "resnet34", "resnet50")


class ResNetBackbone(Backbone):
    """ResNet on the spectrogram repeated to three channels, then two dropout-linear-ReLU layers to D.

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


@register_backbone(*_VARIANTS)
def build(n_mels: int, embed_dim: int, config) -> ResNetBackbone:
    return ResNetBackbone(config.backbone, embed_dim)
