"""Pooling against the official outputs and against a loop over clips."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.pooling import (
    POOLINGS,
    PoolingOptions,
    ProfilePooling,
    register_pooling,
    same_profile_mask,
)

GOLDEN = Path(__file__).parents[1] / "golden"
OFFICIAL = {
    "CNN_NPN": {"temperature": 5.0, "cosine_sign": "similarity", "normalize": True},
    "NeuProNet": {"temperature": 1.0, "cosine_sign": "distance", "normalize": False},
}
NAMES = ("mean", "profile", "cosine", "dot", "profile+cosine", "profile+dot", "cosine+dot", "profile+cosine+dot")


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def pool_one(clip: Tensor, group: Tensor, name: str, options: PoolingOptions) -> Tensor:
    """Pool the profile embeddings (n, D) of one clip's group as the formulas are written."""
    values = group
    if "profile" in name:
        values = torch.stack([v + clip * torch.softmax(v, 0) for v in values])
    if "cosine" in name:
        values = unit(values)
        cosine = (values * unit(clip)).sum(1, keepdim=True)
        values = values * (cosine if options.cosine_sign == "similarity" else 1 - cosine)
    if "dot" in name:
        return (torch.softmax(values @ clip / options.temperature, 0)[:, None] * values).sum(0)
    return values.mean(0)


def random_batch(seed: int, n_clips: int = 20, width: int = 12, n_profiles: int = 7):
    generator = torch.Generator().manual_seed(seed)
    clip, profile = (torch.randn(n_clips, width, generator=generator, dtype=torch.float64) for _ in range(2))
    return clip, profile, torch.randint(n_profiles, (n_clips,), generator=generator)


@pytest.mark.parametrize("model", OFFICIAL)
@pytest.mark.parametrize("name", NAMES[:-1])
def test_equals_official(model, name):
    golden = np.load(GOLDEN / "golden_pool.npz")
    rows = golden["rows"]
    clip, profile = torch.tensor(golden["clip"]), torch.tensor(golden["profile_embedding"])
    out_clip, pooled = ProfilePooling(name, **OFFICIAL[model])(
        clip, profile, same_profile_mask(torch.tensor(golden["profile"]))
    )
    normalized = model == "CNN_NPN" and "cosine" in name
    expected = golden["CNN_NPN/clip_normalized"] if normalized else golden["clip"][rows]
    np.testing.assert_allclose(out_clip[rows], expected, atol=1e-6, rtol=0)
    np.testing.assert_allclose(pooled[rows], golden[f"{model}/{name}"], atol=1e-5, rtol=0)


def test_equals_official_transformer_model():
    golden = np.load(GOLDEN / "golden_c.npz")
    mask = same_profile_mask(torch.tensor(golden["profile"]))
    for name in NAMES[:4]:
        pooling = ProfilePooling(name, **OFFICIAL["NeuProNet"])
        _, pooled = pooling(torch.tensor(golden["encoder_out"]), torch.tensor(golden["all_profiles"]), mask)
        np.testing.assert_allclose(pooled, golden[f"{name}/profiles_tensor"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", OFFICIAL.values(), ids=OFFICIAL)
@pytest.mark.parametrize("name", NAMES)
def test_equals_loop_over_clips(name, options):
    for seed in range(5):
        clip, profile, codes = random_batch(seed)
        codes[0] = 99  # at least one group of one
        out_clip, pooled = ProfilePooling(name, **options)(clip, profile, same_profile_mask(codes))
        normalized = options["normalize"] and "cosine" in name
        pooling_options = PoolingOptions(options["temperature"], options["cosine_sign"])
        for i in range(len(clip)):
            e = unit(clip[i]) if normalized else clip[i]
            expected = pool_one(e, profile[codes == codes[i]], name, pooling_options)
            expected = unit(expected) if normalized else expected
            torch.testing.assert_close(out_clip[i], e)
            torch.testing.assert_close(pooled[i], expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name):
    clip, profile, codes = random_batch(3, n_clips=5, width=4, n_profiles=2)
    mask = same_profile_mask(codes)
    for options in OFFICIAL.values():
        pooling = ProfilePooling(name, **options)
        assert torch.autograd.gradcheck(
            lambda e, p, pooling=pooling: pooling(e, p, mask),
            (clip.requires_grad_(), profile.requires_grad_()),
            fast_mode=True,
        )


@pytest.mark.parametrize("name", NAMES)
def test_rectangular_mask_is_a_part_of_the_square_one(name):
    clip, profile, codes = random_batch(1)
    pooling = ProfilePooling(name, **OFFICIAL["CNN_NPN"])
    _, whole = pooling(clip, profile, same_profile_mask(codes))
    _, part = pooling(clip[4:9], profile, same_profile_mask(codes[4:9], codes))
    torch.testing.assert_close(part, whole[4:9])


@pytest.mark.parametrize("name", NAMES)
def test_row_without_members_is_zero(name):
    clip, profile, codes = random_batch(2)
    mask = same_profile_mask(codes)
    mask[3] = False
    clip.requires_grad_()
    profile.requires_grad_()
    out_clip, pooled = ProfilePooling(name, **OFFICIAL["CNN_NPN"])(clip, profile, mask)
    assert (pooled[3] == 0).all() and (pooled[4] != 0).any()
    (out_clip.sum() + pooled.sum()).backward()
    assert clip.grad.isfinite().all() and profile.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_zero_and_huge_embeddings_stay_finite(name):
    clip, profile, codes = random_batch(4)
    clip, profile = clip.float() * 1e3, profile.float() * 1e3
    clip[0], profile[1] = 0, 0
    clip.requires_grad_()
    profile.requires_grad_()
    for options in OFFICIAL.values():
        out_clip, pooled = ProfilePooling(name, **options)(clip, profile, same_profile_mask(codes))
        (out_clip.sum() + pooled.sum()).backward()
        assert pooled.isfinite().all() and clip.grad.isfinite().all() and profile.grad.isfinite().all()


def test_half_precision_in_half_precision_out():
    clip, profile, codes = random_batch(5)
    pooling, mask = ProfilePooling("dot"), same_profile_mask(codes)
    half = [x.to(torch.bfloat16) for x in (clip, profile)]
    _, pooled = pooling(*half, mask)
    _, expected = pooling(*(x.double() for x in half), mask)
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled, expected.bfloat16())


def test_a_registered_pooling_is_found(monkeypatch):
    monkeypatch.setattr("fairseq_neupronet.networks.pooling.POOLINGS", dict(POOLINGS))
    monkeypatch.setattr(f"{__name__}.POOLINGS", dict(POOLINGS))

    @register_pooling("largest")
    def largest(clip, profile, same_profile, options):
        return profile.masked_fill(~same_profile[:, :, None], -torch.inf).amax(1)

    clip, profile, codes = random_batch(6)
    _, pooled = ProfilePooling("largest")(clip, profile, same_profile_mask(codes))
    torch.testing.assert_close(pooled[0], profile[codes == codes[0]].amax(0))


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"pooling": "dot+cosine"}, "profile\\+cosine\\+dot"),
        ({"cosine_sign": "both"}, "similarity, distance"),
        ({"temperature": 0.0}, "positive"),
        ({"temperature": float("nan")}, "positive"),
    ],
)
def test_unusable_fields_are_named(fields, part):
    with pytest.raises(InputError, match=part):
        ProfilePooling(**fields)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_profiles", [1, 7, 100])
def test_groups_side_by_side_give_the_loops_embeddings_and_gradients(name, n_profiles):
    clip, profile, codes = random_batch(3, n_profiles=n_profiles)
    codes = codes * 1000 - 5
    for tensor in (clip, profile):
        tensor.requires_grad_()
    pooling = ProfilePooling(name, temperature=2.0)
    weights = torch.linspace(-1, 1, clip.numel(), dtype=clip.dtype).view(clip.shape)
    kept, pooled = pooling.within(clip, profile, codes)
    found = torch.autograd.grad((pooled * weights).sum(), (clip, profile), allow_unused=True)
    loop = torch.stack([pool_one(clip[i], profile[codes == codes[i]], name, pooling.options) for i in range(len(clip))])
    expected = torch.autograd.grad((loop * weights).sum(), (clip, profile), allow_unused=True)
    torch.testing.assert_close(kept, clip)
    torch.testing.assert_close(pooled, loop)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.zeros(()) if one is None else one, torch.zeros(()) if other is None else other)


def test_a_registered_pooling_sees_the_whole_batch(monkeypatch):
    monkeypatch.setitem(POOLINGS, "shape", lambda clip, profile, mask, options: clip * 0 + len(mask.nonzero()))
    pooled = ProfilePooling("shape").within(torch.randn(6, 2), torch.randn(6, 2), torch.tensor([0, 0, 1, 1, 2, 2]))[1]
    assert (pooled == 12).all()
