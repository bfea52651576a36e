"""Our codeword lookup against fairseq's own quantiser."""

import pytest
import torch
from fairseq.modules import GumbelVectorQuantizer

from fairseq_neupronet.backbones.wav2vec2.contrast import CodebookQuantizer


@pytest.mark.parametrize("training", [True, False])
def test_same_numbers_draws_and_gradients_as_fairseq(training):
    torch.manual_seed(0)
    theirs = GumbelVectorQuantizer(12, 7, (2.0, 0.5, 0.9), 2, False, 10, time_first=True).train(training)
    ours = CodebookQuantizer(12, 7, 2, 10, (2.0, 0.5, 0.9)).train(training)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    steps = torch.randn(3, 5, 12)
    results, gradients = [], []
    for quantizer in (theirs, ours):
        quantizer.set_num_updates(4)
        given = (steps if quantizer is theirs else steps.flatten(0, 1)).clone().requires_grad_()
        torch.manual_seed(1)
        result = quantizer(given)
        (result["x"].square().sum() + result["prob_perplexity"]).backward()
        results.append(result)
        gradients.append([given.grad.view(15, 12), quantizer.vars.grad, quantizer.weight_proj.weight.grad])
    assert results[0].keys() == results[1].keys()
    results[0]["x"] = results[0]["x"].flatten(0, 1)
    for key, value in results[0].items():
        torch.testing.assert_close(torch.as_tensor(results[1][key]), torch.as_tensor(value))
    for ours_gradient, their_gradient in zip(*gradients, strict=True):
        torch.testing.assert_close(ours_gradient, their_gradient)
