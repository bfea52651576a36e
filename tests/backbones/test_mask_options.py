"""The options of span and channel masks, from the configuration to the masked features."""

import numpy as np
import official_checkpoints as fakes
import pytest
import torch
from conversions import converted
from masks import WIDTH, network, runs
from omegaconf import OmegaConf

from fairseq_neupronet.backbones.wav2vec2.span_masks import draw_masks
from fairseq_neupronet.errors import InputError
from fairseq_neupronet.models.spectrogram_wav2vec2 import SpectrogramWav2Vec2Config, SpectrogramWav2Vec2Model

MASKS = {
    "mask_selection": "normal",
    "mask_other": 1.5,
    "no_mask_overlap": True,
    "mask_min_space": 2,
    "require_same_masks": False,
    "mask_dropout": 0.25,
    "mask_channel_selection": "uniform",
    "mask_channel_other": 3.0,
    "no_mask_channel_overlap": True,
    "mask_channel_min_space": 3,
    "mask_channel_before": True,
}
STEPS = 60


def drawn(n: int = 400, **options) -> tuple[np.ndarray, np.ndarray]:
    return draw_masks(network(**options).config, np.full(n, STEPS), STEPS, np.random.default_rng(1))


def lengths(mask: np.ndarray) -> set[int]:
    return {length for row in mask for _, length in runs(row)}


def gaps(mask: np.ndarray) -> list[int]:
    return [b - a - length for row in mask for (a, length), (b, _) in zip(runs(row), runs(row)[1:], strict=False)]


def test_lengths_of_spans_vary_by_the_selection():
    spans, channels = drawn(no_mask_overlap=True, no_mask_channel_overlap=True)
    assert (lengths(spans), lengths(channels)) == ({5}, {5})
    spans, channels = drawn(
        no_mask_overlap=True,
        no_mask_channel_overlap=True,
        mask_selection="uniform",
        mask_other=2,
        mask_channel_selection="uniform",
        mask_channel_other=7,
    )
    assert lengths(spans) == set(range(2, 11))
    assert lengths(channels) == {7, 8, 9, 10}
    assert min(lengths(drawn(mask_selection="poisson")[0])) < 5 < max(lengths(drawn(mask_selection="normal")[0]))


def test_spans_apart_have_the_space_that_is_asked_for():
    spans, channels = drawn(
        no_mask_overlap=True, mask_min_space=4, no_mask_channel_overlap=True, mask_channel_min_space=2
    )
    assert (min(gaps(spans)), min(gaps(channels))) == (4, 2)
    assert max(lengths(drawn()[0])) > 5


def test_masked_steps_are_thinned():
    whole, thinned = drawn()[0], drawn(mask_dropout=0.5)[0]
    assert abs(thinned.sum() / whole.sum() - 0.5) < 0.02
    spans, channels = drawn(require_same_masks=True)
    assert set(spans.sum(1)) == {whole.sum(1).min()}
    assert len(set(channels.sum(1))) == 1 < len(set(drawn()[1].sum(1)))


def test_without_a_probability_nothing_is_masked():
    spans, channels = drawn(mask_prob=0.0, mask_channel_prob=0.0)
    assert not spans.any() and channels is None


@pytest.mark.parametrize("before", [False, True])
def test_channels_masked_before_steps_leave_the_mask_embedding_whole(before, monkeypatch):
    model = network(mask_channel_before=before).eval()
    seen = []
    monkeypatch.setattr(model.encoder, "forward", lambda x, padding, rng: (seen.append(x.clone()), x)[1])
    source = torch.rand(3, 8, STEPS)
    padding = torch.zeros(3, STEPS, dtype=torch.bool)
    encoded = model.encode(source, padding, np.random.default_rng(2))
    spans, channels = draw_masks(model.config, np.full(3, STEPS), STEPS, np.random.default_rng(2))
    assert (encoded.masked == spans).all()
    expected = encoded.features.detach().clone()
    for clip in range(3):
        for step in range(STEPS):
            for channel in range(WIDTH):
                if spans[clip, step]:
                    kept = before or not channels[clip, channel]
                    expected[clip, step, channel] = model.mask_emb[channel].detach() if kept else 0.0
                elif channels[clip, channel]:
                    expected[clip, step, channel] = 0.0
    assert torch.equal(seen[0], expected)


def test_pretraining_without_masks_is_refused():
    config = OmegaConf.structured(SpectrogramWav2Vec2Config())
    config.update({"n_mels": 8, "mask_prob": 0.0})
    with pytest.raises(InputError, match=r"model\.mask_prob is 0, which leaves pretraining no step to tell"):
        SpectrogramWav2Vec2Model.build_model(config, None)


# ---- converted -----------------------------------------------------------------------------------------------------


def test_every_shape_of_an_official_mask_is_kept(tmp_path, capsys):
    own = {"model": fakes.NETWORK | MASKS}
    model = converted(fakes.classifier(w2v_args=own), tmp_path)["cfg"]["model"]
    for part in ("transformer", "profile_extractor"):
        assert {key: model[part][key] for key in MASKS} == MASKS
    printed = capsys.readouterr().out
    for key in MASKS:
        assert f"model.w2v_args.model.{key} -> model.transformer.{key}, model.profile_extractor.{key} = " in printed


def test_an_extractors_masks_are_kept(tmp_path):
    state = fakes.extractor()
    state["cfg"]["model"] |= MASKS
    model = converted(state, tmp_path)["cfg"]["model"]
    assert {key: model[key] for key in MASKS} == MASKS
