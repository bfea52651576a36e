"""A trained model as a file that runs without this package: ONNX, or torch's own ``pt2``."""

import inspect
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.export import Dim

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.export.graph import Graph
from fairseq_neupronet.files import atomic_file
from fairseq_neupronet.inference.clips import choose_windows, spectrogram_of, treat
from fairseq_neupronet.inference.model import TrainedModel
from fairseq_neupronet.profiles.profile import Profile

FORMATS = ("onnx", "pt2")
TOLERANCE = 1e-4  # of the largest number of an output, and of 1 where that is smaller
METADATA = "neupronet"
# torch cannot prove that a number of frames after a division, of two or more, is never one.
_DEFERRED = "prefer_deferred_runtime_asserts_over_guards"
_LEAST_FRAMES = 32  # of graphs without a fixed length: an EfficientNet's input is padded to so many


def export(model: TrainedModel, path: str | Path, form: str, features_inside: bool) -> float:
    """Write the model as one graph in float32 and compare it with the model.

    Args:
        model: the model; one of ``task.bfloat16`` is taken in float32, for the comparison too.
        path: the file to write; it is there only if it agrees.
        form: one of :data:`FORMATS`.
        features_inside: the graph begins at waveforms (B, samples) at the recipe's rate; otherwise at spectrograms
            (B, M, F).

    Returns:
        The largest difference of a logit or a profile embedding.

    Raises:
        InputError: a torch before 2.9; onnx, onnxscript or onnxruntime is missing; or a graph that differs by more
            than :data:`TOLERANCE`.
    """
    if not can_export():
        raise InputError(
            f"neupronet export needs torch 2.9 or newer, and this is {torch.__version__}; upgrade torch "
            "where you export (the checkpoint may come from any)"
        )
    digest = model.digest
    model = model.in_float32()
    graph = Graph(model.checkpoint, model.network, features_inside).eval()
    probes = _probes(model, graph)
    writing = _write_onnx if form == "onnx" else _write_pt2
    if form == "onnx":
        _require_onnx()
    with torch.no_grad():
        program = torch.export.export(graph, probes[0], dynamic_shapes=_dynamic_shapes(graph), **{_DEFERRED: True})
    with tempfile.TemporaryDirectory(dir=Path(path).resolve().parent) as folder:
        whole = Path(folder) / f"model.{form}"
        run = writing(program, graph, whole, json.dumps(describe(model, graph, digest)))
        pairs = [pair for probe in probes for pair in zip(_expected(model, graph, probe), run(probe), strict=True)]
        if not all(_difference(*pair) <= TOLERANCE * max(1.0, float(pair[0].abs().max())) for pair in pairs):
            raise InputError(
                f"{path}: the graph differs from the model by more than {TOLERANCE:g} of its largest "
                "output; nothing is written (another version of torch may do better)"
            )
        with atomic_file(path, "wb") as file:
            file.write(whole.read_bytes())
    return max(_difference(*pair) for pair in pairs)


def describe(model: TrainedModel, graph: Graph, digest: str) -> dict:
    """What a user of the file has to know, in plain containers; it is stored in the file."""
    recipe = model.features
    windows = choose_windows(model.checkpoint)
    return {
        "classes": model.classes,
        "inputs": graph.input_names,
        "outputs": graph.output_names,
        "sample_rate": recipe.sample_rate,
        "features": recipe.to_dict(),
        "fixed_frames": model.checkpoint.fixed_frames,
        "window_seconds": windows.length / recipe.sample_rate,
        "embedding_width": model.checkpoint.model.decoder_embed_dim,
        "model": digest,
    }


def _require_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise InputError(
                f"--format onnx needs {name}; install it with pip install 'fairseq-neupronet[export]', "
                "or use --format pt2"
            ) from None


def _probes(model: TrainedModel, graph: Graph) -> list[tuple[Tensor, ...]]:
    """Inputs of several batch sizes, lengths and groups; the first is the one that the graph is traced with."""
    generator = torch.Generator().manual_seed(1)
    window = choose_windows(model.checkpoint).length
    shapes = [(3, 1.0, 4), (1, 1.0, 0), (5, 0.6, 1), (2, 0.8, 7)]
    probes = []
    for n_clips, share, n_enrolled in shapes:
        if graph.features is not None:
            n_samples = max(_least_samples(graph), round(share * window))
            sound = torch.randn(n_clips, n_samples, generator=generator) * 0.1
        else:
            n_frames = max(_LEAST_FRAMES, round(share * (model.checkpoint.most_frames or 100)))
            sound = torch.randn(n_clips, model.features.n_mels, n_frames, generator=generator)
        group = []
        if graph.pools:
            group.append(torch.randn(n_enrolled, model.checkpoint.model.decoder_embed_dim, generator=generator))
        if graph.prior_frames is not None:
            bands = model.checkpoint.bands
            frames = torch.randn(model.features.n_mels, 10 * n_enrolled, generator=generator).numpy()
            group.append(torch.from_numpy(bands.sums_of(frames)))
        if graph.prior_clips is not None:
            group.append(torch.from_numpy(_norm_sums(model, n_enrolled, generator)))
        probes.append((sound, *group))
    return probes


def _norm_sums(model: TrainedModel, n_clips: int, generator: torch.Generator) -> np.ndarray:
    """What batch norms receive of some clips of noise."""
    if not n_clips:
        return model.bank.empty.norms
    noise = torch.randn(n_clips, model.features.sample_rate, generator=generator) * 0.1
    return model.in_groups.remember(spectrogram_of(model.checkpoint, each) for each in noise).norms


def _least_samples(graph: Graph) -> int:
    more_frames = 0 if graph.fixed_frames else _LEAST_FRAMES - 2
    return graph.features.least_samples + more_frames * graph.features.recipe.hop_length


def can_export() -> bool:
    """Whether this torch makes a graph of clips of any length."""
    return _DEFERRED in inspect.signature(torch.export.export).parameters


def _dynamic_shapes(graph: Graph) -> tuple:
    batch = Dim("batch", min=1)
    if graph.features is not None:
        sound = {0: batch, 1: Dim("samples", min=_least_samples(graph))}
    else:
        sound = {0: batch, 2: Dim("frames", min=2 if graph.fixed_frames else _LEAST_FRAMES)}
    n_sums = (graph.prior_frames is not None) + (graph.prior_clips is not None)
    group = [{0: Dim("clips", min=0)}] * graph.pools + [{}] * n_sums
    return (sound, tuple(group)) if group else (sound,)


def _write_onnx(program, graph: Graph, path: Path, metadata: str):
    import onnxruntime

    exported = torch.onnx.export(
        program, input_names=graph.input_names, output_names=graph.output_names, dynamo=True, verbose=False
    )
    exported.model.metadata_props[METADATA] = metadata
    exported.save(path, external_data=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        named = dict(zip(graph.input_names, (each.numpy() for each in inputs), strict=True))
        return [torch.from_numpy(output) for output in session.run(None, named)]

    return run


def _write_pt2(program, graph: Graph, path: Path, metadata: str):
    torch.export.save(program, os.fspath(path), extra_files={f"{METADATA}.json": metadata})
    loaded = torch.export.load(os.fspath(path)).module()
    return lambda inputs: loaded(*inputs)


def _expected(model: TrainedModel, graph: Graph, probe: tuple[Tensor, ...]) -> list[Tensor]:
    """What the model itself says, by the way that predictions take."""
    checkpoint, (sound, *group), nothing = model.checkpoint, probe, model.bank.empty
    enrolled = group.pop(0) if graph.pools else nothing.embeddings
    bands = group.pop(0).numpy() if graph.prior_frames is not None else nothing.bands
    norms = group.pop(0).numpy() if graph.prior_clips is not None else nothing.norms
    profile = Profile(enrolled, bands, norms)
    treated = [
        treat(checkpoint, each.numpy()) if graph.features is None else spectrogram_of(checkpoint, each)
        for each in sound
    ]
    classified = model.in_groups.classify(treated, [profile] * len(treated))
    return [getattr(classified, output) for output in graph.output_names]


def _difference(expected: Tensor, found: Tensor) -> float:
    return float((expected - found).abs().max())


def describe_lengths(model: TrainedModel) -> str:
    """In words, what the graph does with clips of other lengths."""
    frames = model.checkpoint.fixed_frames
    if frames is None:
        return f"clips of any length from {_LEAST_FRAMES} frames up"
    return f"clips of any length are padded or cut to {frames} frames, the longest training clip"
