"""Training that goes on from a converted checkpoint: moments, updates, schedule."""

import re

import official_checkpoints as fakes
import pytest
import tiny
import torch
from fairseq import optim
from fairseq.optim.adam import FairseqAdam
from omegaconf import OmegaConf
from test_conversion import converted, loaded, refused

# Small enough to be told from rounding, large enough for tensors of some thousand numbers.
close = {"rtol": 1e-5, "atol": 1e-7}


def adam(model, state: dict) -> FairseqAdam:
    """fairseq's optimiser of a converted configuration, with the moments of the converted checkpoint."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = optim.build_optimizer(OmegaConf.create(state["cfg"]["optimizer"]), trained)
    optimizer.load_state_dict(state["last_optimizer_state"], {})
    return optimizer


def official_name(name: str) -> str:
    for ours, theirs in (
        ("backbone.network.", "encoder.w2v_model."),
        ("backbone.", "encoder."),
        ("head.", "decoder."),
        ("profile_extractor.network.", "profile_extractor.w2v_model."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def gradients_of_a_batch(model) -> None:
    """Every parameter gets its gradient, of one batch that is always the same."""
    generator = torch.Generator().manual_seed(3)
    source = torch.rand(4, 128, 40, generator=generator) * 255
    padding = torch.zeros(4, 40, dtype=torch.bool)
    group = torch.tensor([0, 0, 1, 1])
    model.eval()
    logits = model(source, padding, group).logits
    contrast = model.contrast(source, padding, group)["logits"]
    (logits.logsumexp(1).sum() + contrast.logsumexp(1).sum()).backward()


def by_hand(official: dict, names: list[str], model) -> dict[str, torch.Tensor]:
    """What AdamW makes of every parameter, from the official moments; ``names`` says which index is whose."""
    group = official["last_optimizer_state"]["param_groups"][0]
    (beta1, beta2), lr = group["betas"], group["lr"]
    updated = {}
    for name, parameter in model.named_parameters():
        theirs = official_name(name)
        value = official["model"][theirs].double()
        state = official["last_optimizer_state"]["state"].get(names.index(theirs))
        if parameter.grad is None:
            updated[name] = value
            continue
        gradient = parameter.grad.double()
        first = beta1 * state["exp_avg"].double() + (1 - beta1) * gradient
        second = beta2 * state["exp_avg_sq"].double() + (1 - beta2) * gradient**2
        steps = state["step"] + 1
        mean, variance = first / (1 - beta1**steps), second / (1 - beta2**steps)
        # fairseq adds epsilon before the bias of the second moment is taken out.
        epsilon = group["eps"] / (1 - beta2**steps) ** 0.5
        updated[name] = value * (1 - lr * group["weight_decay"]) - lr * mean / (variance.sqrt() + epsilon)
    return updated


def assert_next_update(official: dict, names: list[str], state: dict) -> None:
    model = loaded(state)
    optimizer = adam(model, state)
    gradients_of_a_batch(model)
    expected = by_hand(official, names, model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer.step()
    moved = 0
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name].float(), **close)
        moved += not torch.equal(parameter, before[name])
    assert moved > 90


def test_the_next_update_is_that_of_the_official_moments(tmp_path):
    official = fakes.classifier()
    assert_next_update(official, list(official["model"]), converted(official, tmp_path))


def test_parameters_in_another_order_keep_their_own_moments(tmp_path):
    """Here the official model had its head first and its backbone last."""
    official = fakes.classifier()
    names = sorted(official["model"], key=lambda name: (not name.startswith("decoder"), name.startswith("encoder")))
    assert names != list(official["model"])
    official["model"] = {name: official["model"][name] for name in names}
    official["last_optimizer_state"] = fakes.moments(official["model"], seed=5)
    assert_next_update(official, names, converted(official, tmp_path))


def test_parameters_without_moments_stay_without(tmp_path):
    """The backbone's projections of the contrastive task are never trained in an official classifier."""
    official = fakes.classifier()
    names = list(official["model"])
    for name in ("encoder.w2v_model.project_q.weight", "encoder.w2v_model.final_proj.bias"):
        del official["last_optimizer_state"]["state"][names.index(name)]
    state = converted(official, tmp_path)["last_optimizer_state"]
    assert len(state["state"]) == len(names) - 2
    assert len(state["param_groups"][0]["params"]) == len(names)


def test_the_flat_moments_of_half_precision_are_reordered(tmp_path, capsys):
    official = fakes.classifier()
    reverse = dict(reversed(official["model"].items()))
    per_parameter = fakes.moments(reverse, seed=7)["state"]
    flat = {
        key: torch.cat([moments[key].flatten() for moments in per_parameter.values()])
        for key in ("exp_avg", "exp_avg_sq")
    }
    official["model"] = reverse
    group = official["last_optimizer_state"]["param_groups"][0] | {"params": [0]}
    official["last_optimizer_state"] = {"state": {0: flat | {"step": 20}}, "param_groups": [group], "loss_scale": 4.0}
    official["optimizer_history"][0]["optimizer_name"] = "FP16Optimizer"
    state = converted(official, tmp_path)
    assert state["last_optimizer_state"]["loss_scale"] == 4.0
    assert state["optimizer_history"][0]["optimizer_name"] == "FP16Optimizer"
    vector, offset = state["last_optimizer_state"]["state"][0]["exp_avg"], 0
    names = list(reverse)
    for name, parameter in loaded(state).named_parameters():
        mine = vector[offset : offset + parameter.numel()].view_as(parameter)
        assert torch.equal(mine, per_parameter[names.index(official_name(name))]["exp_avg"])
        offset += parameter.numel()
    assert offset == len(vector)
    assert "go on with common.fp16=true" in capsys.readouterr().out


def test_the_number_of_updates_the_epoch_and_the_best_share_are_kept(tmp_path):
    state = converted(fakes.classifier(), tmp_path)
    assert state["optimizer_history"] == [
        {
            "criterion_name": "NeuProNetCriterion",
            "optimizer_name": "FairseqAdam",
            "num_updates": 20,
            "lr_scheduler_state": {"best": 0.25},
        },
    ]
    assert state["extra_state"] == {
        "train_iterator": {"version": 2, "epoch": 7, "iterations_in_epoch": 0, "shuffle": True},
        "best": 0.71875,
        "val_loss": 0.71875,
        "previous_training_time": 8.5,
    }


@pytest.mark.parametrize("history", [None, []])
def test_a_checkpoint_stripped_for_use_begins_at_update_0(tmp_path, capsys, history):
    official = fakes.classifier()
    del official["last_optimizer_state"], official["extra_state"]
    official["optimizer_history"] = history
    state = converted(official, tmp_path)
    assert (state["optimizer_history"][0]["num_updates"], state["last_optimizer_state"]) == (0, None)
    assert state["extra_state"]["train_iterator"]["epoch"] == 1
    assert "optimizer_history: not in the checkpoint; training from it begins at update 0" in capsys.readouterr().out


def test_moments_without_a_number_of_updates_are_refused(tmp_path, capsys):
    official = fakes.classifier() | {"optimizer_history": []}
    assert "does not say how many updates it was trained for" in refused(official, tmp_path, capsys)


def test_the_last_of_several_optimizers_counts(tmp_path):
    official = fakes.classifier()
    last = official["optimizer_history"][0]
    official["optimizer_history"] = [last | {"num_updates": 7, "optimizer_name": "FP16Optimizer"}, last]
    (history,) = converted(official, tmp_path)["optimizer_history"]
    assert (history["num_updates"], history["optimizer_name"]) == (20, "FairseqAdam")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state["state"][3].update(exp_avg=torch.zeros(3)), "exp_avg of"),
        (lambda state: state["state"][3].update(momentum_buffer=torch.zeros(3)), "momentum_buffer of"),
        (lambda state: state["state"][3].pop("exp_avg_sq"), "no moments of Adam for"),
        (lambda state: state["param_groups"][0]["params"].pop(), "not numbered from 0"),
        (lambda state: (state["state"].pop(97), state["param_groups"][0]["params"].pop()), "it is of 97 parameters"),
        (lambda state: state["param_groups"].append(state["param_groups"][0]), "not one group"),
    ],
)
def test_an_optimiser_state_that_does_not_fit_is_named_and_can_be_left_out(tmp_path, capsys, spoil, said):
    official = fakes.classifier()
    spoil(official["last_optimizer_state"])
    sentence = refused(official, tmp_path, capsys)
    assert "its optimiser state cannot be taken over: " in sentence
    assert said in sentence
    assert "--without-optimizer" in sentence
    assert converted(official, tmp_path, "--without-optimizer")["last_optimizer_state"] is None


@pytest.mark.slow
def test_training_goes_on_by_the_recipe_and_once_it_was_interrupted_by_its_own_checkpoint(tmp_path, own_corpus):
    """20 official updates and 4 of ours; then the same command with more."""
    official = fakes.classifier()
    for name in ("encoder", "profile_extractor"):
        first = f"{name}.w2v_model.feature_extractor.conv_layers.0.0.weight"
        official["model"][first] = official["model"][first][:, : tiny.N_MELS].clone()
    official["model"] |= {"decoder.0.weight": torch.zeros(3, 512), "decoder.0.bias": torch.zeros(3)}
    official["last_optimizer_state"] = fakes.moments(official["model"])
    official["cfg"]["task"]["num_mels"] = official["cfg"]["model"]["w2v_args"]["model"]["num_mel"] = tiny.N_MELS
    official["cfg"]["model"]["clf_output_dim"] = 3
    official["cfg"]["criterion"]["class_weights"] = [1.0] * 3
    converted(official, tmp_path, "--recipe", tmp_path / "on.yaml", "--data", own_corpus)
    arguments = [
        "--config-dir",
        tmp_path,
        "--config-name",
        "on",
        f"task.data={own_corpus}",
        "common.log_interval=1",
        "common.log_format=simple",
        "dataset.batch_size=8",
        "hydra.run.dir=run",
        "dataset.num_workers=0",
    ]

    def updates(most: int) -> tuple[str, list[int]]:
        run = tiny.command("fairseq-hydra-train", *arguments, f"optimization.max_update={most}", cwd=tmp_path)
        assert run.returncode == 0, run.stderr
        return run.stdout, [int(number) for number in re.findall(r"train_inner.*num_updates=(\d+)", run.stdout)]

    printed, numbers = updates(24)
    assert f"Loaded checkpoint {tmp_path / 'out.pt'} (epoch 7 @ 20 updates)" in printed
    assert numbers == [21, 22, 23, 24]
    state = torch.load(tmp_path / "run" / "checkpoints" / "checkpoint_last.pt", weights_only=True)
    steps = [moments["step"] for moments in state["last_optimizer_state"]["state"].values()]
    untrained = 4  # the backbone's projections of the contrastive task
    assert (steps.count(20), steps.count(24)) == (untrained, len(steps) - untrained)
    (tmp_path / "run" / "training.json").unlink()
    printed, numbers = updates(26)
    assert f"Loaded checkpoint {'run/checkpoints/checkpoint_last.pt'}" in printed.replace(f"{tmp_path}/", "")
    assert numbers == [25, 26]
