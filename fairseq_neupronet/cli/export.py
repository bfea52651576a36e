"""``neupronet export``: a trained model as ONNX, or as torch's pt2."""

import argparse

from fairseq_neupronet.cli.model_options import add_model_options, load_model, quiet_libraries

_FORMATS = ("onnx", "pt2")
_DESCRIPTION = """\
Write a trained model as one graph that runs without this package and without fairseq, and check it against the model
(within 1e-4 of the largest logit, on four batches). It computes in float32, also where training used bfloat16.
"""
_EPILOG = """\
inputs
  waveform (batch, samples)        --features inside: mono at the model's rate, full scale 1
  spectrogram (batch, mels, frames) --features outside: of the model's feature recipe
  enrolled (clips, width)          models with profiles: profile embeddings of the clips' profile; none: clips alone
  enrolled_sums (1 + 2 mels,)      models of task.profile_normalize: sums over the enrolled frames of 1, of each band,
                                   of each band's square (float64); zeros: clips alone
  enrolled_norms (1 + …,)          models of task.adaptive_batch_norm: what neupronet enrol kept of the profile's batch
                                   norms (float64); zeros: clips alone
outputs
  logits (batch, classes), and profile (batch, width) for models with profiles: the clips' own, to be enrolled
lengths
  Batch and length are free; the clips of a batch have one length. Where the model was trained with task.padding=fixed,
  a shorter clip is padded and a longer one cut to its longest training clip inside the graph.
Classes, feature recipe and sample rate are stored in the file (ONNX: metadata 'neupronet'; pt2: 'neupronet.json').
"""


def add_parser(subparsers) -> None:
    """Add ``export``."""
    parser = subparsers.add_parser(
        "export",
        help="write a trained model as ONNX or pt2",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", required=True, choices=_FORMATS, help="onnx, or pt2 (torch.export)")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--features",
        choices=("inside", "outside"),
        default="inside",
        help="whether the graph computes the spectrogram (default: %(default)s)",
    )
    add_model_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    with quiet_libraries():
        from fairseq_neupronet.export.export import describe_lengths, export

        model = load_model(arguments)
        difference = export(model, arguments.out, arguments.format, arguments.features == "inside")
    print(f"{arguments.out}: agrees with the model within {difference:.1e}; {describe_lengths(model)}")
