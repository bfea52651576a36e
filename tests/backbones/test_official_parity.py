"""Networks against the official code's outputs (tests/golden/README.md), within 1e-5."""

import numpy as np
import pytest
import torch
from official import CLOSE, GOLDEN, REFERENCE, compare_with_pretraining, extractor, neupronet

from fairseq_neupronet.networks.pooling import same_profile_mask

POOLINGS = ("mean", "profile", "cosine", "dot")


@pytest.fixture(scope="module")
def golden():
    return {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / "golden_c.npz").items() if value.shape}


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_transformer_model(golden, pooling):
    rows = golden["source_rows"]
    model = neupronet(pooling)
    clip, profile = model.embed(golden["source"], golden["padding_mask"][:, 0])
    torch.testing.assert_close(clip, golden["encoder_out"][rows], **CLOSE)
    torch.testing.assert_close(profile, golden["all_profiles"][rows], **CLOSE)
    mask = same_profile_mask(golden["profile"][rows], golden["profile"])
    logits = model.classify(clip, golden["all_profiles"], mask).logits
    torch.testing.assert_close(logits, golden[f"{pooling}/logits"][rows], **CLOSE)


@torch.no_grad()
def test_extractor_steps(golden):
    network = neupronet("dot").profile_extractor.network
    encoded = network.encode(golden["source"], golden["padding_mask"][:, 0], None)
    torch.testing.assert_close(encoded.x, golden["w2v_x"], **CLOSE)
    unmasked = golden["contrastive/unmasked_features"][golden["source_rows"]]
    torch.testing.assert_close(encoded.features, unmasked, **CLOSE)
    assert torch.equal(encoded.padding, golden["profile_padding_mask"][golden["source_rows"]])


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference checkpoints are not here (NEUPRONET_REFERENCE)")
@pytest.mark.parametrize("quantized", [False, True])
def test_pretraining(quantized):
    checkpoint = REFERENCE / f"official_pretrain{'_quantized' * quantized}.pt"
    compare_with_pretraining(extractor(torch.load(checkpoint, weights_only=True)["model"], quantized), quantized)
