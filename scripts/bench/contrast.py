"""Pooling, and the contrastive term. Letters: B clips, T steps, A anchors, N negatives an anchor, C width."""

from functools import partial

from bench.comparison import Comparison, Figure, Options, Run, Side
from bench.memory import RETURNS_MEMORY, growth_mib
from bench.timing import seconds

_N_CLIPS, _N_STEPS, _N_ANCHORS, _N_WITHIN, _N_ACROSS, _WIDTH = 64, 50, 25, 20, 80, 256
_SIZE = f"{_N_CLIPS} clips, {_N_STEPS} steps, {_N_ANCHORS} anchors, {_N_WITHIN + _N_ACROSS} negatives"
_CLIPS_PER_PROFILE = 8
_POOLED_CLIPS = 512


def comparisons(options: Options) -> list[Comparison]:
    device = options.device
    pooling = Comparison(
        "pooling",
        (
            Figure(
                f"dot pooling, {_POOLED_CLIPS} clips, {_CLIPS_PER_PROFILE} a profile, with backward",
                "time",
                "ms",
                options.wanted("ratio", least=50),
            ),
        ),
        Side(partial(time_of, our_pooling, device, times=20)),
        Side(partial(time_of, pooling_by_loop, device)),
    )
    # Seconds and memory want different allocators, hence different processes.
    infonce = Comparison(
        "infonce",
        (Figure(f"InfoNCE, {_SIZE}, with backward", "time", "ms", options.wanted("ratio", least=5)),),
        Side(partial(time_of, our_infonce, device, times=5)),
        Side(partial(time_of, gathered_infonce, device)),
    )
    memory = Comparison(
        "infonce-memory",
        (Figure(f"memory that InfoNCE adds, {_SIZE}", "growth", "MiB", options.wanted("ratio", least=10)),),
        Side(partial(growth_of, our_infonce, device), RETURNS_MEMORY),
        Side(partial(growth_of, gathered_infonce, device), RETURNS_MEMORY),
    )
    negatives = Comparison(
        "negatives",
        (Figure(f"drawing negatives, {_SIZE}", "time", "ms"),),
        Side(partial(time_of, our_negatives, device, times=10)),
        Side(partial(time_of, negatives_by_loop, device)),
    )
    return [pooling, infonce, memory, negatives]


def our_pooling(device: str):
    from fairseq_neupronet.networks.pooling import ProfilePooling
    from fairseq_neupronet.trainer.memory import keep_freed_memory

    keep_freed_memory()  # as trainings do
    clip, profile, codes = _pooled(device)
    pool = ProfilePooling("dot")

    def step():
        pooled = pool.within(clip, profile, codes)[1]
        pooled.sum().backward()
        return pooled

    return step


def pooling_by_loop(device: str):
    import torch

    clip, profile, codes = _pooled(device)

    def step():
        pooled = []
        for number in range(len(clip)):
            members = profile[codes == codes[number]]
            weights = torch.softmax((members * clip[number]).sum(dim=1), dim=0)
            pooled.append((weights[:, None] * members).sum(dim=0))
        pooled = torch.stack(pooled)
        pooled.sum().backward()
        return pooled

    return step


def _pooled(device: str):
    import torch

    torch.manual_seed(0)
    clip, profile = (torch.randn(_POOLED_CLIPS, _WIDTH, device=device, requires_grad=True) for _ in range(2))
    return clip, profile, torch.randperm(_POOLED_CLIPS).to(device) // _CLIPS_PER_PROFILE


def our_infonce(device: str):
    from fairseq_neupronet.backbones.wav2vec2.contrast import infonce_logits, infonce_loss

    anchors, targets, place, negatives = _contrasted(device)

    def step():
        loss = infonce_loss(infonce_logits(anchors, targets, place, negatives, 0.1))
        loss.backward()
        return loss

    return step


def gathered_infonce(device: str):
    """As fairseq's wav2vec 2.0: the negatives laid out, (A, N, C)."""
    import torch
    import torch.nn.functional as F

    anchors, targets, place, negatives = _contrasted(device)

    def step():
        drawn = targets[negatives.index]
        positive = targets[place].unsqueeze(1)
        equal = (drawn == positive).all(dim=-1)
        logits = F.cosine_similarity(anchors.unsqueeze(1), torch.cat([positive, drawn], dim=1), dim=-1) / 0.1
        logits = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(equal | ~negatives.valid, -torch.inf)], dim=1)
        loss = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=device), reduction="sum")
        loss.backward()
        return loss

    return step


def _contrasted(device: str):
    import torch

    from fairseq_neupronet.backbones.wav2vec2.contrast import sample_negatives

    clip, step, candidate, group = _anchors(device)
    anchors = torch.randn(len(clip), _WIDTH, device=device, requires_grad=True)
    targets = torch.randn(_N_CLIPS * _N_STEPS, _WIDTH, device=device, requires_grad=True)
    negatives = sample_negatives(clip, step, candidate, group, _N_WITHIN, _N_ACROSS)
    return anchors, targets, clip * _N_STEPS + step, negatives


def _anchors(device: str):
    import torch

    torch.manual_seed(0)
    step = torch.stack([torch.randperm(_N_STEPS)[:_N_ANCHORS].sort().values for _ in range(_N_CLIPS)]).flatten()
    clip = torch.arange(_N_CLIPS).repeat_interleave(_N_ANCHORS)
    candidate = torch.ones(_N_CLIPS, _N_STEPS, dtype=torch.bool)
    return [each.to(device) for each in (clip, step, candidate, torch.arange(_N_CLIPS) // _CLIPS_PER_PROFILE)]


def time_of(build, device: str, times: int = 1) -> Run:
    step = build(device)
    return lambda: {"time": 1000 * seconds(step, times, device)}


def growth_of(build, device: str) -> Run:
    step = build(device)
    return lambda: {"growth": growth_mib(step, device)}


def our_negatives(device: str):
    from fairseq_neupronet.backbones.wav2vec2.contrast import sample_negatives

    return partial(sample_negatives, *_anchors(device), _N_WITHIN, _N_ACROSS)


def negatives_by_loop(device: str):
    """Anchor by anchor: from its clip's other candidates, and from those of clips of other groups."""
    import torch

    clip, step, candidate, group = _anchors(device)
    flat = torch.arange(candidate.numel(), device=device).view_as(candidate)

    def draw():
        drawn = []
        for number in range(len(candidate)):
            elsewhere = flat[group != group[number]][candidate[group != group[number]]]
            own = flat[number][candidate[number]]
            for place in step[clip == number]:
                others = own[own != flat[number, place]]
                within = others[torch.randint(len(others), (_N_WITHIN,), device=device)]
                drawn.append(torch.cat([within, elsewhere[torch.randint(len(elsewhere), (_N_ACROSS,), device=device)]]))
        return torch.stack(drawn)

    return draw
