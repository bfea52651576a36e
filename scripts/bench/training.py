"""Training steps of EfficientNet-B0: zero_grad, forward, loss, backward, update.

The yardstick is what an official training step costs: efficientnet_pytorch as it comes, fairseq's own Adam, glibc's
allocator as it is set. Letters: B clips, M mel bands, F frames, D embedding width.
"""

from functools import partial
from types import SimpleNamespace

from bench.comparison import Comparison, Figure, Options, Run, Side, Wanted
from bench.timing import seconds

N_MELS, N_FRAMES, N_CLASSES, EMBED_DIM = 128, 128, 6, 256
CLIPS_PER_PROFILE = 8
ADAM = {"lr": 1e-4, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.004}  # of the recipes
_GRADIENT_BATCH = 8
_TIMES = {"cpu": 1, "cuda": 20}  # steps of a run: a GPU's take milliseconds
_LEAST_GAIN = {128: 4.0, 32: 2.0}
TOO_LONG = "takes minutes; leave out --quick"


def comparisons(options: Options) -> list[Comparison]:
    same = Figure(
        f"its gradient against the other's, relative to that one's norm, batch {_GRADIENT_BATCH}",
        "difference",
        "",
        Wanted("ours", most=1e-4),
        compared=False,
    )
    steps = [
        Comparison(
            f"step-{size}",
            (
                Figure(
                    f"training step, efficientnet-b0, batch {size}",
                    "time",
                    "ms a clip",
                    options.wanted("ratio", least=gain),
                ),
                same,
            ),
            Side(partial(our_step, size, options.device)),
            Side(partial(plain_step, size, options.device)),
            lacks=TOO_LONG if options.quick and size > 32 else "",
        )
        for size, gain in _LEAST_GAIN.items()
    ]
    size = 16 if options.quick else 128
    profile = Comparison(
        "profile",
        (
            Figure(
                f"profile branch in one pass against two, batch {size}",
                "overhead",
                "% of the base step",
                options.wanted("ours", most=30),
            ),
        ),
        Side(partial(profile_overhead, size, options.device, True)),
        Side(partial(profile_overhead, size, options.device, False)),
    )
    return [*steps, profile]


def our_step(size: int, device: str) -> Run:
    """A step as ``fairseq-hydra-train`` makes it, without fairseq's trainer around it."""
    from fairseq_neupronet.trainer.memory import keep_freed_memory

    keep_freed_memory()
    difference = gradient_difference(device)
    step = training_step(size, device)
    return lambda: {"time": 1000 * seconds(step, _TIMES[device], device) / size, "difference": difference}


def training_step(size: int, device: str = "cpu", **model_options):
    """Build our model, criterion and optimiser; the function returned does a step on one random batch."""
    import torch
    from fairseq.criterions import CRITERION_REGISTRY
    from omegaconf import OmegaConf

    import fairseq_neupronet.tasks  # noqa: F401 (registers the plugin)
    from fairseq_neupronet.criterions.neupronet import NeuProNetCriterionConfig
    from fairseq_neupronet.trainer.fused_adam import FusedAdam

    torch.manual_seed(0)
    model = our_model(**model_options).to(device)
    task = SimpleNamespace(classes=range(N_CLASSES), cfg=SimpleNamespace(profiling=model.profiling))
    criterion = CRITERION_REGISTRY["NeuProNet"](OmegaConf.structured(NeuProNetCriterionConfig()), task)
    optimizer = FusedAdam(model.parameters(), **ADAM)
    batch = random_batch(size, device)

    def step() -> None:
        optimizer.zero_grad()
        loss, _, _ = criterion(model, batch)
        loss.backward()
        optimizer.step()

    return step


def our_model(**options):
    """NeuProNet with an EfficientNet-B0 backbone and the published extractor, in training mode."""
    from omegaconf import OmegaConf

    from fairseq_neupronet.models.neupronet import NeuProNetConfig, NeuProNetModel

    config = NeuProNetConfig(
        backbone="efficientnet-b0", n_mels=N_MELS, n_classes=N_CLASSES, decoder_embed_dim=EMBED_DIM, **options
    )
    return NeuProNetModel.build_model(OmegaConf.structured(config), None).train()


def random_batch(size: int, device: str = "cpu") -> dict:
    import numpy as np
    import torch

    return {
        "id": torch.arange(size, device=device),
        "subset": "train",
        "net_input": {
            "source": torch.randn(size, N_MELS, N_FRAMES).to(device),
            "padding_mask": torch.zeros(size, N_FRAMES, dtype=torch.bool, device=device),
            "frames": np.full(size, N_FRAMES),
            "profile": torch.arange(size, device=device) // CLIPS_PER_PROFILE,
        },
        "target": torch.randint(0, N_CLASSES, (size,)).to(device),
    }


def plain_step(size: int, device: str) -> Run:
    import torch
    import torch.nn.functional as F
    from fairseq.optim.adam import Adam

    torch.manual_seed(0)
    model = plain_model().to(device)
    optimizer = Adam(model.parameters(), **ADAM)
    batch = random_batch(size, device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(batch["net_input"]["source"]), batch["target"], reduction="sum").backward()
        optimizer.step()

    return lambda: {"time": 1000 * seconds(step, _TIMES[device], device) / size}


def plain_model():
    """efficientnet_pytorch with our head on it, (B, M, F) → (B, classes), in training mode.

    The head: mean over frequency, 1 × 1 convolution, sigmoid, mean over time, linear.
    """
    import torch
    from efficientnet_pytorch import EfficientNet
    from torch import nn

    class PlainEfficientNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.effnet = EfficientNet.from_name("efficientnet-b0", in_channels=1, include_top=False)
            for module in self.effnet.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = 0.1
            self.projection = nn.Conv2d(self.effnet._conv_head.out_channels, EMBED_DIM, kernel_size=1)
            self.head = nn.Linear(EMBED_DIM, N_CLASSES)

        def forward(self, source):
            features = self.effnet.extract_features(source.transpose(1, 2).unsqueeze(1))
            by_time = torch.sigmoid(self.projection(features.mean(dim=3, keepdim=True)))
            return self.head(by_time.mean(dim=(2, 3)))

    return PlainEfficientNet().train()


def gradient_difference(device: str = "cpu") -> float:
    """Norm of the difference of both gradients over plain's norm, with equal weights and without drop connect.

    On a GPU without TensorFloat-32, whose ten bits would be all that is seen.
    """
    import torch
    import torch.nn.functional as F

    torch.manual_seed(0)
    plain, ours = plain_model().to(device), our_model().to(device)
    parts = (
        (ours.backbone.effnet, plain.effnet),
        (ours.backbone.projection, plain.projection),
        (ours.head[0], plain.head),
    )
    for mine, other in parts:
        mine.load_state_dict(other.state_dict())
    for network in parts[0]:
        network._global_params = network._global_params._replace(drop_connect_rate=0.0)
    batch = random_batch(_GRADIENT_BATCH, device)
    source, mask = batch["net_input"]["source"], batch["net_input"]["padding_mask"]
    with torch.backends.cudnn.flags(allow_tf32=False):
        F.cross_entropy(plain(source), batch["target"]).backward()
        F.cross_entropy(ours(source, mask).logits, batch["target"]).backward()
    pairs = [
        (a.grad, b.grad) for mine, other in parts for a, b in zip(mine.parameters(), other.parameters(), strict=True)
    ]
    square = sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs)
    return float(square.sqrt())


def profile_overhead(size: int, device: str, one_pass: bool) -> Run:
    """The profile model's step minus the base model's, one after the other in the same process."""
    from fairseq_neupronet.trainer.memory import keep_freed_memory

    keep_freed_memory()
    base = training_step(size, device)
    profile = training_step(size, device, profiling=True, one_pass=one_pass)

    def run() -> dict[str, float]:
        without, with_profiles = (seconds(step, _TIMES[device], device) for step in (base, profile))
        return {"overhead": 100 * (with_profiles / without - 1)}

    return run
