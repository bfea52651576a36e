"""One pass of the extractor for embedding and contrastive task, against a pass for each."""

import numpy as np
import pytest
import tiny
import torch

from fairseq_neupronet.backbones.wav2vec2 import network as spectrogram_wav2vec2
from fairseq_neupronet.backbones.wav2vec2.span_masks import span_mask

# Without dropout the passes differ by their masks only.
STILL = {
    name: 0.0
    for name in (
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "encoder_layerdrop",
        "dropout_input",
        "dropout_features",
        "mask_channel_prob",
    )
}


def trained_step(corpus, **options):
    """Loss, gradients and the number of the extractor's passes at one training step."""
    task = tiny.build_task(corpus, profiling=True)
    torch.manual_seed(0)
    model = tiny.build_model(task, profile_extractor=STILL, transformer=STILL, final_dropout=0.0, **options).train()
    criterion = tiny.build_criterion(task, loss_weights=[0.5, 0.5]).train()
    batch = tiny.batches(task, "train", batch_size=12)[0]
    passes = []
    hook = model.profile_extractor.network.feature_extractor.register_forward_hook(lambda *_: passes.append(1))
    torch.manual_seed(7)
    loss, *_ = criterion(model, batch)
    hook.remove()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return loss.detach(), gradients, len(passes)


def test_with_the_same_masks_loss_and_gradients_are_those_of_two_passes(corpus, monkeypatch):
    def same_masks(config, steps, n_steps, rng):
        return span_mask(steps, n_steps, 0.5, 2, 2, np.random.default_rng(3)), None

    def same_negatives(*arguments, generator, **options):
        return sample(*arguments, generator=torch.Generator().manual_seed(5), **options)

    sample = spectrogram_wav2vec2.sample_negatives
    monkeypatch.setattr(spectrogram_wav2vec2, "draw_masks", same_masks)
    monkeypatch.setattr(spectrogram_wav2vec2, "sample_negatives", same_negatives)
    one, two = trained_step(corpus, one_pass=True), trained_step(corpus, one_pass=False)
    assert (one[2], two[2]) == (1, 2)
    torch.testing.assert_close(one[0], two[0], rtol=1e-6, atol=0)
    assert one[1].keys() == two[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, two[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("apply_mask, passes", [(True, 1), (False, 2)])
def test_an_unmasked_embedding_needs_a_pass_of_its_own(corpus, apply_mask, passes):
    assert trained_step(corpus, apply_mask=apply_mask)[2] == passes


@pytest.mark.parametrize("frozen", [{"freeze_profile_extractor_updates": 5}, {"freeze_profile_extractor": True}])
def test_a_frozen_extractor_runs_once_a_batch_and_learns_nothing(corpus, frozen):
    _, gradients, passes = trained_step(corpus, **frozen)
    assert passes == 1
    assert not any(name.startswith("profile_extractor.") for name in gradients)


def test_evaluation_embeds_clips_without_masks(corpus):
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task).eval()
    batch = tiny.batches(task, "train", batch_size=12)[0]["net_input"]
    output = model(**batch)
    assert output.encoded is None
    expected = model.profile_extractor.network.encode(batch["source"], batch["padding_mask"], None)
    kept = ~expected.padding.unsqueeze(2)
    mean = (model.profile_extractor.proj(expected.x) * kept).sum(1) / kept.sum(1)
    torch.testing.assert_close(output.profile, mean)
