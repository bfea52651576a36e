"""Our codeword lookup against fairseq's own quantiser."""

import pytest
import torch
from fairseq.modules import GumbelVectorQuantizer

from fairseq_neupronet.backbones.wav2vec2.quantizer import CodebookQuantizer

SETTINGS = {
    "dim": 12,
    "num_vars": 7,
    "temp": (2.0, 0.5, 0.9),
    "groups": 2,
    "combine_groups": False,
    "vq_dim": 10,
    "time_first": True,
}


@pytest.mark.parametrize("training", [True, False])
def test_same_numbers_draws_and_gradients_as_fairseq(training):
    torch.manual_seed(0)
    theirs = GumbelVectorQuantizer(**SETTINGS).train(training)
    ours = CodebookQuantizer(**SETTINGS).train(training)
    ours.load_state_dict(theirs.state_dict())
    steps = torch.randn(3, 5, 12)
    results, gradients = [], []
    for quantizer in (theirs, ours):
        quantizer.set_num_updates(4)
        given = steps.clone().requires_grad_()
        torch.manual_seed(1)
        result = quantizer(given)
        (result["x"].square().sum() + result["prob_perplexity"]).backward()
        results.append(result)
        gradients.append([given.grad, quantizer.vars.grad, quantizer.weight_proj.weight.grad])
    for key, value in results[0].items():
        torch.testing.assert_close(torch.as_tensor(results[1][key]), torch.as_tensor(value))
    for ours_gradient, their_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_gradient, their_gradient)
