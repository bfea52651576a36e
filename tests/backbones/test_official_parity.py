"""Networks against the official code's outputs (tests/golden/README.md), within 1e-5."""

import numpy as np
import pytest
import torch
from official import GOLDEN, REFERENCE, extractor, neupronet

from fairseq_neupronet.backbones.wav2vec2.infonce import infonce_loss
from fairseq_neupronet.backbones.wav2vec2.negatives import Negatives
from fairseq_neupronet.backbones.wav2vec2.network import Randomness
from fairseq_neupronet.networks.pooling import same_profile_mask

POOLINGS = ("mean", "profile", "cosine", "dot")
close = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def golden():
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / "golden_c.npz").items() if value.shape}


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_transformer_model(golden, pooling):
    rows = golden["source_rows"]
    model = neupronet(pooling)
    clip, profile = model.embed(golden["source"], golden["padding_mask"][:, 0])
    torch.testing.assert_close(clip, golden["encoder_out"][rows], **close)
    torch.testing.assert_close(profile, golden["all_profiles"][rows], **close)
    mask = same_profile_mask(golden["profile"][rows], golden["profile"])
    logits = model.classify(clip, golden["all_profiles"], mask).logits
    torch.testing.assert_close(logits, golden[f"{pooling}/logits"][rows], **close)


@torch.no_grad()
def test_extractor_steps(golden):
    network = neupronet("dot").profile_extractor.network
    encoded = network.encode(golden["source"], golden["padding_mask"][:, 0], None)
    torch.testing.assert_close(encoded.x, golden["w2v_x"], **close)
    unmasked = golden["contrastive/unmasked_features"][golden["source_rows"]]
    torch.testing.assert_close(encoded.features, unmasked, **close)
    assert torch.equal(encoded.padding, golden["profile_padding_mask"][golden["source_rows"]])


def _official_span_mask(padding: np.ndarray, prob: float, length: int) -> np.ndarray:
    """The span scheme of fairseq in 2022, drawing from numpy's global generator, two spans at least."""
    n_clips, n_steps = padding.shape
    np.random.rand()
    chosen = []
    for clip in range(n_clips):
        steps = n_steps - int(padding[clip].sum())
        spans = max(2, int(prob * steps / length + np.random.rand()))
        shortest = length if steps - length > spans else steps - spans - 1
        starts = np.random.choice(steps - shortest, spans, replace=False)
        covered = np.unique(starts[:, None] + np.arange(length))
        chosen.append(covered[covered < steps])
    fewest = min(map(len, chosen))
    mask = np.zeros(padding.shape, bool)
    for clip, steps in enumerate(chosen):
        mask[clip, np.random.choice(steps, fewest, replace=False) if len(steps) > fewest else steps] = True
    return mask


def _official_negatives(mask: np.ndarray, within: int, across: int) -> Negatives:
    """fairseq's draws from torch's global generator: padding included, both halves joined before the reshape."""
    n_clips, n_steps = mask.shape
    n_anchors = int(mask[0].sum())
    halves = []
    for count, high, base in ((within, n_steps, n_steps), (across, n_clips * n_steps, 0)):
        itself = torch.arange(n_anchors).repeat_interleave(count)
        drawn = torch.randint(high - 1, (n_clips, count * n_anchors))
        halves.append(drawn + (drawn >= itself) + torch.arange(n_clips)[:, None] * base)
    index = torch.cat(halves, dim=1).view(n_clips * n_anchors, within + across)
    return Negatives(index, torch.ones_like(index, dtype=torch.bool), torch.tensor(0))


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference checkpoints are not here (NEUPRONET_REFERENCE)")
@pytest.mark.parametrize("quantized", [False, True])
def test_pretraining(quantized):
    checkpoint = REFERENCE / f"official_pretrain{'_quantized' * quantized}.pt"
    compare_with_pretraining(extractor(torch.load(checkpoint, weights_only=True)["model"], quantized), quantized)


@torch.no_grad()
def compare_with_pretraining(model, quantized: bool) -> None:
    """An extractor's steps, features and InfoNCE against the official ones."""
    golden = np.load(REFERENCE / f"golden_pretrain{'_q' * quantized}.npz")
    source, padding = torch.from_numpy(golden["source"]), torch.from_numpy(golden["padding_mask"][:, 0])
    encoded = model.encode(source, padding, None)
    assert np.array_equal(encoded.padding.numpy(), golden["out_padding_mask"])
    np.testing.assert_allclose(encoded.x, golden["x"], **close)
    np.testing.assert_allclose(encoded.features, golden["features"], **close)
    np.testing.assert_allclose(encoded.features_penalty, golden["features_pen"], **close)

    np.random.seed(7)
    torch.manual_seed(7)
    mask = _official_span_mask(golden["out_padding_mask"], prob=0.5, length=4)
    negatives = _official_negatives(mask, within=5, across=5)
    everywhere = torch.ones(mask.shape, dtype=torch.bool)
    masked = model.encode(source, padding, None, torch.from_numpy(mask))
    output = model.contrast(masked, None, Randomness.for_batch(False, source.device), negatives, everywhere)
    step_major = output["logits"].view(len(mask), -1, 11).transpose(0, 1).flatten(0, 1)
    np.testing.assert_allclose(step_major, golden["logits_seed7"], **close)
    assert float(infonce_loss(output["logits"])) == pytest.approx(float(golden["infonce_seed7"]), abs=1e-4)
