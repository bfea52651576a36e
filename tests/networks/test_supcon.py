"""SupCon against the official values and a loop over anchors."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.networks.losses import supcon_loss

GOLDEN = Path(__file__).parents[1] / "golden"
KEYS = [
    f"{features}/{mode}/T{temperature}/B{base}/{labels}"
    for features in ("f1", "f2")
    for mode in ("all", "one")
    for temperature in (0.07, 0.7)
    for base in (0.07, 0.7)
    for labels in ("labels", "nolabels")
]


@pytest.mark.parametrize("key", KEYS)
def test_equals_official(key):
    golden = np.load(GOLDEN / "golden_supcon.npz")
    features, mode, temperature, base, labels = key.split("/")
    codes = torch.tensor(golden["labels"]) if labels == "labels" else None
    loss = supcon_loss(torch.tensor(golden[features]), codes, float(temperature[1:]), float(base[1:]), mode)
    # One unit in the last place of a float32 above 32 is 4e-6.
    assert abs(float(loss) - float(golden[key])) <= 1e-5


def test_a_class_of_its_own_for_every_clip_gives_zero_as_in_the_official_code():
    golden = np.load(GOLDEN / "golden_supcon.npz")
    loss = supcon_loss(torch.tensor(golden["f1"]), torch.arange(16))
    assert float(loss) == float(golden["f1/one/T0.7/B0.7/all_singletons"]) == 0


@pytest.mark.parametrize("mode", ["one", "all"])
def test_equals_loop_over_anchors(mode):
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(9, 2, 5, generator=generator, dtype=torch.float64), dim=-1)
    labels = [0, 1, 1, 2, 0, 0, 3, 1, 4]
    samples = [(i, v) for v in range(2) for i in range(9)]
    total, n_anchors = 0.0, 0
    for i, v in samples if mode == "all" else [(i, 0) for i in range(9)]:
        others = [s for s in samples if s != (i, v)]
        similarity = {s: float(features[i, v] @ features[s]) / 0.3 for s in others}
        normalizer = math.log(sum(math.exp(x) for x in similarity.values()))
        positives = [s for s in others if labels[s[0]] == labels[i]]
        total -= 0.3 / 0.5 * sum(similarity[s] - normalizer for s in positives) / len(positives)
        n_anchors += 1
    loss = supcon_loss(features, torch.tensor(labels), 0.3, 0.5, mode)
    assert float(loss) == pytest.approx(total / n_anchors, rel=1e-12)


@pytest.mark.parametrize(("n_clips", "n_views"), [(0, 1), (1, 1), (1, 2), (4, 1)])
@pytest.mark.parametrize("mode", ["one", "all"])
def test_nothing_to_contrast_gives_zero_and_a_gradient(n_clips, n_views, mode):
    features = torch.nn.functional.normalize(torch.randn(n_clips, n_views, 3), dim=-1).requires_grad_()
    loss = supcon_loss(features, torch.arange(n_clips), mode=mode)
    loss.backward()
    assert loss.item() == 0 and features.grad.isfinite().all()


@pytest.mark.parametrize(("fields", "part"), [({"mode": "two"}, "one, all"), ({"temperature": 0}, "positive")])
def test_unusable_fields_are_named(fields, part):
    with pytest.raises(InputError, match=part):
        supcon_loss(torch.ones(2, 1, 3), **fields)
