"""The contrastive task from the masked features to its logits, step by step."""

from unittest import mock

import numpy as np
import pytest
import tiny
import torch
from masks import network

from fairseq_neupronet.backbones.wav2vec2 import network as spectrogram_wav2vec2
from fairseq_neupronet.backbones.wav2vec2.network import Randomness


@pytest.mark.parametrize("everywhere", [True, False])
@torch.no_grad()
def test_logits_are_cosines_over_the_temperature_of_steps_drawn_as_configured(everywhere):
    model = network(
        num_negatives=3,
        cross_sample_negatives=5,
        logit_temp=0.25,
        negatives_from_everywhere=everywhere,
        mask_channel_prob=0.0,
    ).eval()
    source, frames, group = torch.rand(4, 8, 60), torch.tensor([60, 41, 33, 12]), torch.tensor([5, 5, 2, 2])
    encoded = model.encode(source, torch.arange(60) >= frames[:, None], np.random.default_rng(1))
    sample, drawn = spectrogram_wav2vec2.sample_negatives, []

    def remembered(*arguments, **options):
        drawn.append(sample(*arguments, **options))
        return drawn[-1]

    with mock.patch.object(spectrogram_wav2vec2, "sample_negatives", remembered):
        logits = model.contrast(encoded, group, Randomness.for_batch(False, source.device))["logits"]
    targets, index = model.project_q(encoded.features), drawn[0].index
    for row, (clip, step) in enumerate(zip(*np.nonzero(encoded.masked), strict=True)):
        others = [place // 60 for place in index[row].tolist()]
        within, across = others[:3], others[3:]
        assert set(within) == {clip} and len(across) == 5
        assert {int(group[other]) for other in across} == {7 - int(group[clip])}
        query = model.final_proj(encoded.x[clip, step])
        for column, place in enumerate([clip * 60 + step, *index[row].tolist()]):
            other, other_step = divmod(place, 60)
            assert other_step < frames[other] and (everywhere or encoded.masked[other, other_step])
            expected = torch.cosine_similarity(query, targets[other, other_step], dim=0) / 0.25
            torch.testing.assert_close(logits[row, column], expected, atol=1e-5, rtol=1e-5)


def test_feature_grad_mult_scales_the_gradient_of_the_convolutions():
    def gradient(scale: float):
        torch.manual_seed(0)
        model = network(feature_grad_mult=scale, mask_prob=0.0, mask_channel_prob=0.0, dropout_features=0.0).eval()
        source = torch.rand(2, 8, 60, generator=torch.Generator().manual_seed(1))
        model.encode(source, torch.zeros(2, 60, dtype=torch.bool), None).x.square().sum().backward()
        return next(model.feature_extractor.parameters()).grad

    torch.testing.assert_close(gradient(0.1), 0.1 * gradient(1.0))
    assert gradient(0.0) is None


@pytest.mark.parametrize("frozen", [{"freeze_profile_extractor_updates": 9}, {"freeze_profile_extractor": True}])
def test_a_frozen_extractor_tells_its_contrastive_loss_in_evaluation_only(corpus, frozen):
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task, **frozen)
    criterion = tiny.build_criterion(task, loss_weights=[0.5, 0.5])
    batch = tiny.batches(task, "train", batch_size=12)[0]
    assert criterion.train()(model.train(), batch)[2]["n_anchors"] == 0
    log = criterion.eval()(model.eval(), batch | {"subset": "valid"})[2]
    assert log["n_anchors"] > 0 and float(log["contrastive"]) > 1
