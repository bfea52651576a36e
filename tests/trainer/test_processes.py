"""Several processes: what each is given, what is refused, and fairseq's own commands in two of them."""

import copy
import json
import re
import subprocess
import sys
from collections import Counter
from math import ceil
from unittest import mock

import numpy as np
import pytest
import tiny
import torch
import two_processes
from omegaconf import OmegaConf

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.runs.run import run_name
from fairseq_neupronet.trainer.processes import check_processes

# Nothing random, nothing that couples clips; a big epsilon, because Adam turns the rounding of a gradient that is zero
# into whole steps; no weight decay, which fairseq's DistributedDataParallel applies to unused parameters too.
PLAIN = [
    f"model.transformer.{name}=0.0"
    for name in (
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "dropout_input",
        "dropout_features",
        "encoder_layerdrop",
    )
]
PLAIN += ["model.apply_mask=false", "model.final_dropout=0.0", "criterion.loss_weights=[1.0,0.0]"]
PLAIN += ["optimizer.adam_eps=0.001", "optimizer.weight_decay=0.0", "hydra.run.dir=run"]
PROFILES = [option.replace("transformer", "profile_extractor") for option in PLAIN if "transformer" in option]
PROFILES += ["task.profiling=true", "model.pooling=dot"]


# ---- shards --------------------------------------------------------------------------------------------------------


def shard(task, split: str, number: int, n_shards: int, batch_size: int) -> list[np.ndarray]:
    """Clips of each batch that one worker of several gets."""
    batches = tiny.batches(task, split, batch_size, num_shards=n_shards, shard_id=number)
    return [batch["id"].numpy() if batch else np.empty(0, int) for batch in batches]


@pytest.mark.parametrize(("batch_size", "odd"), [(12, False), (9, True)])
def test_a_chunk_of_a_profile_is_whole_within_a_worker(corpus, batch_size, odd):
    task = tiny.build_task(corpus, profiling=True, profile_batches=True, clips_per_profile=3)
    task.load_dataset("train")
    shards = [shard(task, "train", number, 2, batch_size) for number in range(2)]
    batches = [batch for batches in shards for batch in batches if len(batch)]
    assert len(batches) % 2 == odd
    assert len(shards[0]) == len(shards[1])  # fairseq fills up with an empty batch
    assert sorted(np.concatenate(batches)) == list(range(tiny.CLIPS["train"]))
    profiles = task.dataset("train").manifest.profiles
    chunks = Counter()
    for batch in batches:
        for profile, n_clips in Counter(profiles[batch].tolist()).items():
            chunks[profile] += ceil(n_clips / 3)
    # A chunk in two batches would count twice.
    assert chunks == {profile: ceil(n_clips / 3) for profile, n_clips in Counter(profiles.tolist()).items()}


# ---- a worker without a batch --------------------------------------------------------------------------------------


def test_nobody_shares_a_profile_with_the_batch_of_a_worker_that_has_none(corpus):
    task = tiny.build_task(corpus, profiling=True)
    sample = tiny.batches(task, "train")[0]
    before = copy.deepcopy(sample["net_input"]["profile"])
    model, criterion = tiny.build_model(task), tiny.build_criterion(task)
    seen = []
    optimizer = mock.Mock(backward=lambda loss: loss.backward())
    with mock.patch.object(criterion, "forward", lambda model, sample: _noted(seen, sample, model)):
        for ignored in (False, True):
            task.train_step(sample, model, criterion, optimizer, 0, ignore_grad=ignored)
    assert seen[0].tolist() == before.tolist()
    assert len(set(seen[1].tolist())) == len(before)
    assert seen[1].max() < 0 <= before.min()
    assert sample["net_input"]["profile"].tolist() == before.tolist()  # fairseq keeps the batch for other updates


def _noted(seen: list, sample: dict, model):
    seen.append(sample["net_input"]["profile"])
    return sum(parameter.sum() for parameter in model.parameters()), 1, {}


def test_an_ignored_batch_has_a_finite_loss_and_no_gradient(corpus):
    task = tiny.build_task(corpus, profiling=True)
    model, criterion = tiny.build_model(task), tiny.build_criterion(task, loss_weights=[0.5, 0.5])
    optimizer = mock.Mock(backward=lambda loss: loss.backward())
    loss, _, _ = task.train_step(tiny.batches(task, "train")[0], model, criterion, optimizer, 0, ignore_grad=True)
    assert loss == 0
    for parameter in model.parameters():
        assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("n_updates", [1, 2])
def test_a_frozen_network_stands_still_though_other_processes_leave_it_gradients_of_zero(corpus, n_updates):
    """fairseq's DistributedDataParallel makes zeros of them, and weight decay would then move the network."""
    task = tiny.build_task(corpus, profiling=True)
    model = tiny.build_model(task, freeze_profile_extractor_updates=2, freeze_backbone_updates=1)
    model.set_num_updates(n_updates)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = copy.deepcopy(model.state_dict())
    task.optimizer_step(torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1), model, n_updates)
    moved = {name.split(".")[0] for name, weight in model.state_dict().items() if not weight.equal(before[name])}
    assert moved == {"backbone", "head"} | ({"profile_extractor"} if n_updates == 2 else set())


# ---- what cannot work ----------------------------------------------------------------------------------------------


def config(common=(), **distributed):
    defaults = {
        "distributed_world_size": 2,
        "distributed_no_spawn": False,
        "distributed_init_method": None,
        "distributed_backend": "gloo",
        "ddp_backend": "legacy_ddp",
    }
    return OmegaConf.create({"common": {"cpu": False, **dict(common)}, "distributed_training": defaults | distributed})


@pytest.mark.parametrize(
    ("n_gpus", "settings", "named"),
    [
        (0, {}, "distributed_world_size=2"),
        (1, {}, "distributed_world_size=2"),
        (0, {"distributed_init_method": "tcp://localhost:1"}, "distributed_world_size=2"),  # no process at all
        (0, {"distributed_no_spawn": True, "distributed_backend": "nccl"}, "distributed_backend=nccl"),
        (2, {"distributed_backend": "nccl", "common": {"cpu": True}}, "distributed_backend=nccl"),
        (0, {"distributed_no_spawn": True, "ddp_backend": "pytorch_ddp"}, "ddp_backend=pytorch_ddp"),
    ],
)
def test_processes_that_fairseq_cannot_start_are_refused(monkeypatch, n_gpus, settings, named):
    monkeypatch.delenv("RANK", raising=False)
    with mock.patch("torch.cuda.device_count", return_value=n_gpus), pytest.raises(InputError, match=named):
        check_processes(config(**settings))


@pytest.mark.parametrize(
    ("n_gpus", "settings"),
    [
        (0, {"distributed_world_size": 1}),
        (0, {"distributed_no_spawn": True}),
        (2, {"distributed_backend": "nccl", "ddp_backend": "pytorch_ddp"}),
        (2, {"distributed_world_size": 4, "distributed_init_method": "tcp://other:1", "distributed_backend": "nccl"}),
    ],
)
def test_processes_that_fairseq_can_start_are_not(monkeypatch, n_gpus, settings):
    monkeypatch.delenv("RANK", raising=False)
    with mock.patch("torch.cuda.device_count", return_value=n_gpus):
        check_processes(config(**settings))


def test_the_processes_of_a_training_share_a_folder():
    one, other = (
        run_name(["a=1", f"distributed_training.distributed_rank={rank}", f"+distributed_training.device_id={rank}"])
        for rank in range(2)
    )
    assert one == other == "a=1"
    assert run_name(["distributed_training.distributed_world_size=2"]) != "default"


# ---- the real commands ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A profile model that two processes trained, 5 batches an epoch between them, and what they printed."""
    folder = tmp_path_factory.mktemp("processes")
    tiny.write_corpus(folder / "data")
    options = ["task.profiling=true", "model.gather_profiles=true", "task.protocol=full", "hydra.run.dir=run"]
    finished = two_processes.train(*options, "optimization.max_update=6", cwd=folder)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder, finished.stdout


def last_figures(printed: str, subset: str) -> dict[str, str]:
    line = [line for line in printed.splitlines() if f"valid on '{subset}' subset" in line][-1]
    return dict(part.strip().split(" ", 1) for part in line.split("subset | ")[1].split("|"))


def assert_equal_but_for_the_last_digit(figures: dict[str, str], expected: dict[str, str]) -> None:
    """The batches of two processes are summed in another order than those of one."""
    assert figures["protocol"] == expected["protocol"]
    numbers = {name: float(value) for name, value in expected.items() if name != "protocol"}
    assert {name: float(figures[name]) for name in numbers} == pytest.approx(numbers, rel=2e-5, abs=1e-6)


@pytest.mark.slow
def test_two_processes_keep_one_folder_and_say_so_once(trained):
    folder, printed = trained
    assert printed.count("neupronet: finished: ") == 1
    assert json.loads((folder / "run" / "training.json").read_text())["finished"] is True
    assert sorted(path.name for path in (folder / "run" / "checkpoints").iterdir()) == [
        "MODEL_CARD.md",
        "checkpoint_best.pt",
        "checkpoint_last.pt",
        "progress.json",
        "training.csv",
    ]
    state = torch.load(folder / "run" / "checkpoints" / "checkpoint_last.pt", weights_only=True)
    assert state["optimizer_history"][-1]["num_updates"] == 6


@pytest.mark.slow
def test_figures_of_a_training_in_two_processes_are_those_of_one_process(trained, tmp_path, capsys):
    folder, printed = trained
    capsys.readouterr()
    tiny.fairseq_validate(folder / "run" / "checkpoints" / "checkpoint_last.pt", folder / "data", split="valid")
    alone, together = last_figures(capsys.readouterr().out, "valid"), last_figures(printed, "valid")
    assert {"loss", "loss_contrastive", "accuracy", "auc", "brier_micro", "protocol"} < alone.keys()
    assert_equal_but_for_the_last_digit(together, alone)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["full", "single"])
def test_validation_in_two_processes_is_that_of_one_to_the_digit(trained, tmp_path, capsys, protocol):
    folder, _ = trained
    checkpoint, data = folder / "run" / "checkpoints" / "checkpoint_last.pt", folder / "data"
    options = ["--model-overrides", f"{{'protocol': '{protocol}'}}", "--results-path"]
    capsys.readouterr()
    tiny.fairseq_validate(checkpoint, data, *options, tmp_path / "one")
    figures = last_figures(capsys.readouterr().out, "test")
    printed = two_processes.validate(checkpoint, data, *options, tmp_path / "two", cwd=tmp_path)
    assert figures["protocol"] == protocol
    assert last_figures(printed[0], "test") == figures
    for name in ("predictions.tsv", "metrics.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert len((tmp_path / "two" / "predictions.tsv").read_text().splitlines()) == 1 + tiny.CLIPS["test"]
    assert sum(output.count("predictions.tsv and metrics.json") for output in printed) == 1


def weights(folder) -> dict:
    return torch.load(folder / "run" / "checkpoints" / "checkpoint_last.pt", weights_only=True)["model"]


def assert_trained_alike(folder, together: list[str], alone: list[str]):
    """The same training in two processes and in one."""
    results = []
    for name, start, options in (
        ("two", two_processes.train, together),
        (
            "one",
            lambda *overrides, cwd: tiny.train("finetuning", "vocalsound", "task.data=data", *overrides, cwd=cwd),
            alone,
        ),
    ):
        (folder / name).mkdir()
        tiny.write_corpus(folder / name / "data")
        finished = start(*PLAIN, *options, cwd=folder / name)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        results.append(weights(folder / name))
    for name, weight in results[1].items():
        torch.testing.assert_close(results[0][name], weight, atol=1e-5, rtol=0, msg=lambda text, name=name: name + text)
    return results


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_two_batches_an_update(tmp_path):
    """5 batches an epoch: the third update of an epoch has one, and the second worker none."""
    updates = "optimization.max_update=6"
    assert_trained_alike(tmp_path, [updates], [updates, "optimization.update_freq=[2]"])


@pytest.mark.slow
def test_with_gathered_profiles_two_processes_learn_what_one_learns_from_a_batch_twice_the_size(tmp_path):
    common = [*PROFILES, "optimization.max_update=4"]
    half, whole = (f"dataset.batch_size={tiny.CLIPS['train'] // n}" for n in (2, 1))
    assert_trained_alike(tmp_path, [*common, half, "model.gather_profiles=true"], [*common, whole])


SPAWNED = """
from unittest import mock

if __name__ == "__main__":
    from fairseq_cli.hydra_train import cli_main

    with mock.patch("torch.cuda.device_count", return_value=2):
        cli_main()
"""


@pytest.mark.slow
def test_where_fairseq_starts_the_processes_the_parent_keeps_the_folder(tmp_path):
    """As on a machine with two GPUs, whose number is pretended; the processes stay on the CPU."""
    tiny.write_corpus(tmp_path / "data")
    (tmp_path / "command.py").write_text(SPAWNED)
    arguments = tiny.training("finetuning", "vocalsound", "task.data=data", *two_processes.TWO_ON_CPU)
    runs = [
        subprocess.run(
            [sys.executable, "command.py", *arguments],
            cwd=tmp_path,
            env=tiny.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        for _ in range(2)
    ]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    (folder,) = (tmp_path / "outputs" / "vocalsound").iterdir()
    assert runs[0].stdout.count("neupronet: finished: ") == 1
    assert re.search(r"num_updates 4\b", runs[0].stdout)
    assert runs[1].stdout.count("neupronet: finished already: ") == 1
    assert json.loads((folder / "training.json").read_text())["finished"] is True


@pytest.mark.slow
def test_processes_on_the_cpu_that_nobody_starts_are_refused(tmp_path):
    tiny.write_corpus(tmp_path / "data")
    finished = tiny.train("finetuning", "vocalsound", "task.data=data", *two_processes.TWO_ON_CPU, cwd=tmp_path)
    assert "start them with torchrun" in tiny.one_sentence(finished)
    assert not (tmp_path / "outputs").exists()
