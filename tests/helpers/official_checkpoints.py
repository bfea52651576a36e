"""Checkpoints in the official shape, made here: configuration as official training saves it, parameters as it names."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from official import GOLDEN, REFERENCE

# As the reference checkpoints have it; no code of theirs.
NETWORK = {
    "_name": "wav2vec2",
    "extractor_mode": "default",
    "encoder_layers": 2,
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 128,
    "encoder_attention_heads": 4,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "conv_feature_layers": "[(64, 3, 1, 1), (64, 3, 2, 2)]",
    "conv_bias": False,
    "conv_pos": 16,
    "conv_pos_groups": 4,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.0,
    "dropout_input": 0.0,
    "dropout_features": 0.0,
    "feature_grad_mult": 1.0,
    "mask_prob": 0.3,
    "mask_length": 4,
    "mask_selection": "static",
    "mask_other": 0.0,
    "no_mask_overlap": False,
    "mask_min_space": 1,
    "require_same_masks": True,
    "mask_dropout": 0.0,
    "mask_channel_prob": 0.25,
    "mask_channel_length": 8,
    "mask_channel_before": False,
    "mask_channel_selection": "static",
    "mask_channel_other": 0.0,
    "no_mask_channel_overlap": False,
    "mask_channel_min_space": 1,
    "num_negatives": 5,
    "cross_sample_negatives": 5,
    "negatives_from_everywhere": True,
    "codebook_negatives": 0,
    "logit_temp": 0.1,
    "final_dim": 64,
    "quantize_targets": False,
    "quantize_input": False,
    "latent_vars": 16,
    "latent_groups": 2,
    "latent_dim": 0,
    "latent_temp": [2.0, 0.5, 0.999995],
    "num_mel": 128,
    "layer_type": "transformer",
}
MODEL = {
    "_name": "NeuProNet",
    "clf_output_dim": 4,
    "num_classes": 2,
    "decoder_embed_dim": 256,
    "clf_hidden_dim": 64,
    "clf_dropout_rate": 0.1,
    "apply_mask": True,
    "final_dropout": 0.0,
    "freeze_finetune_updates": 0,
    "batch_mask": True,
    "npn_option": 2,
    "use_attention": False,
    "tensor_fusion": False,
    "use_profile_attention": False,
    "use_cossim_attention": False,
    "use_dot_softmax_attention": True,
    "mask_prob": 0.3,
    "mask_length": 4,
    "conv_feature_layers": "[(512, 10, 5)] + [(512, 3, 2)] * 4",
    "w2v_path": "pretrain/checkpoint_last.pt",
    "profile_extractor_path": "pretrain/checkpoint_last.pt",
    "no_pretrained_weights": True,
    "data": "data",
}
TASK = {
    "_name": "audio_finetuning",
    "data": "data",
    "profiling": True,
    "num_mels": 128,
    "labels": "label",
    "max_sample_size": None,
    "specaug": False,
    "sup_contrast": False,
    "auto_encoder": False,
    "enable_padding": False,
}
OPTIMIZER = {"_name": "adam", "adam_betas": "(0.9,0.98)", "adam_eps": 1e-8, "weight_decay": 0.004, "lr": [0.001]}
UPDATES = 20


def configuration(model: dict, task: dict, criterion: dict) -> dict:
    """A whole configuration, without the sections that mean nothing to a conversion."""
    return {
        "_name": None,
        "common": {"_name": None, "seed": 1, "fp16": False, "cpu": True, "user_dir": None},
        "checkpoint": {
            "_name": None,
            "best_checkpoint_metric": "accuracy",
            "maximize_best_checkpoint_metric": True,
            "save_dir": "there",
            "no_epoch_checkpoints": True,
        },
        "dataset": {"_name": None, "batch_size": 32, "train_subset": "train", "valid_subset": "valid"},
        "optimization": {"_name": None, "max_update": 100, "lr": [0.001], "sentence_avg": True},
        "generation": {"_name": None, "beam": 5},
        "model": model,
        "task": task,
        "criterion": criterion,
        "optimizer": dict(OPTIMIZER),
        "lr_scheduler": {
            "_name": "tri_stage",
            "phase_ratio": [0.1, 0.6, 0.3],
            "final_lr_scale": 0.05,
            "lr": [0.001],
            "max_update": 100.0,
        },
    }


def moments(parameters: dict[str, torch.Tensor], seed: int = 0) -> dict:
    """Adam's state, by the index of the parameter, buffers left out; step and moments are different for each."""
    generator = torch.Generator().manual_seed(seed)
    trained = [value for name, value in parameters.items() if not is_buffer(name)]
    state = {
        index: {
            "step": UPDATES,
            "exp_avg": torch.randn(value.shape, generator=generator) * 1e-2,
            "exp_avg_sq": torch.rand(value.shape, generator=generator) * 1e-4,
        }
        for index, value in enumerate(trained)
    }
    group = {"lr": 5e-4, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.004, "amsgrad": False}
    return {"state": state, "param_groups": [group | {"params": list(range(len(trained)))}]}


def is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def checkpoint(parameters: dict[str, torch.Tensor], config: dict, **changes) -> dict:
    """A checkpoint as official training saves it."""
    return {
        "args": None,
        "cfg": config,
        "model": parameters,
        "criterion": None,
        "optimizer_history": [
            {
                "criterion_name": "NeuProNetCriterion",
                "optimizer_name": "FairseqAdam",
                "num_updates": UPDATES,
                "lr_scheduler_state": {"best": 25.0},
            },
        ],
        "task_state": {},
        "extra_state": {
            "train_iterator": {"version": 2, "epoch": 7, "iterations_in_epoch": 2, "shuffle": True},
            "best": 71.875,
            "val_loss": 71.875,
            "previous_training_time": 8.5,
            "metrics": {},
        },
        "last_optimizer_state": moments(parameters),
    } | changes


def classifier_parameters() -> dict[str, torch.Tensor]:
    """Those of the official transformer model, in its order: backbone, head, profile extractor."""
    return {
        name: torch.from_numpy(value)
        for part in ("official_backbone", "official_profile_extractor")
        for name, value in np.load(GOLDEN / f"{part}.npz").items()
    }


def classifier(**changes) -> dict:
    """The official transformer model with profiles; ``changes`` replace options of its model section."""
    model = MODEL | {"w2v_args": {"model": dict(NETWORK), "task": {"_name": "stft_audio_pretraining"}}} | changes
    criterion = {
        "_name": "NeuProNet",
        "class_weights": [1.0] * 4,
        "loss_weights": [0.99, 0.01],
        "gamma": 0.0,
        "ovr_onehot": False,
        "sentence_avg": True,
    }
    return checkpoint(classifier_parameters(), configuration(model, dict(TASK), criterion))


def extractor() -> dict:
    """A pretrained extractor with the classifier's own weights."""
    prefix = "profile_extractor.w2v_model."
    parameters = {
        name.removeprefix(prefix): value for name, value in classifier_parameters().items() if name.startswith(prefix)
    }
    task = {"_name": "stft_audio_pretraining", "data": "data", "profiling": False, "num_mels": 128}
    config = configuration(dict(NETWORK), task, {"_name": "wav2vec", "infonce": True, "loss_weights": None})
    config["checkpoint"] |= {"best_checkpoint_metric": "loss", "maximize_best_checkpoint_metric": False}
    state = checkpoint(parameters, config)
    state["extra_state"]["best"] = 3.3
    state["optimizer_history"][0]["criterion_name"] = "Wav2vecCriterion"
    return state


def state_list(letter: str) -> dict[str, torch.Tensor]:
    """Random parameters of the names and shapes of ``state_{letter}.txt``; variances are positive."""
    generator = torch.Generator().manual_seed(ord(letter[0]))
    parameters = {}
    for line in (REFERENCE / f"state_{letter}.txt").read_text().splitlines():
        name, shape, dtype = line.split("\t")
        size = [int(number) for number in shape.strip("()").split(",") if number.strip()]
        if dtype == "torch.int64":
            parameters[name] = torch.tensor(UPDATES)
            continue
        values = torch.randn(size, generator=generator) * 0.05
        positive = name.endswith("running_var") or (len(size) == 1 and name.endswith("weight"))
        parameters[name] = values.abs() + 0.5 if positive else values
    return parameters


def cnn(letter: str, arch: str, profiling: bool, **changes) -> dict:
    """A ``CNN_NPN`` of one of the state lists."""
    model = MODEL | {"_name": "CNN_NPN", "cnn_arch": arch, "num_mels": 192}
    if profiling:
        model["w2v_args"] = {"model": dict(NETWORK)}
    criterion = {"_name": "NeuProNet", "class_weights": [3.0, 1.0, 1.0, 0.5], "loss_weights": [0.99, 0.01]}
    task = TASK | {"profiling": profiling}
    return checkpoint(state_list(letter), configuration(model | changes, task, criterion))


def save(state: dict, path: Path) -> Path:
    torch.save(state, path)
    return path


def repack(path: Path, out: Path, change) -> Path:
    """Copy a checkpoint's archive, its pickle replaced by ``change(pickle)``."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as copy:
        for member in archive.infolist():
            data = archive.read(member)
            copy.writestr(member.filename, change(data) if member.filename.endswith("data.pkl") else data)
    return out


def pickled(value) -> bytes:
    """The pickle that torch would write of a value without tensors."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
