"""``neupronet serve`` and ``neupronet export``: a trained model as a page in the browser, and as a file for others."""

import argparse
import contextlib

from fairseq_neupronet.cli.model_options import add_model_options, load_model
from fairseq_neupronet.errors import quiet_libraries

_FORMATS = ("onnx", "pt2")
_EXPORT = """\
Write a trained model as one graph that runs without this package and without fairseq, and check it against the model
(within 1e-4 of the largest logit, on four batches). It computes in float32, also where training used bfloat16.
"""
_EXPORT_EPILOG = """\
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


def add_export(subparsers) -> None:
    """Add ``export``."""
    parser = subparsers.add_parser(
        "export",
        help="write a trained model as ONNX or pt2",
        description=_EXPORT,
        epilog=_EXPORT_EPILOG,
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
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    with quiet_libraries():
        from fairseq_neupronet.export.export import describe_lengths, export

        model = load_model(arguments)
        difference = export(model, arguments.out, arguments.format, arguments.features == "inside")
    print(f"{arguments.out}: agrees with the model within {difference:.1e}; {describe_lengths(model)}")


_SERVE = """\
Open a page on this machine: drop or record a clip, see its spectrogram and class probabilities, enrol profiles, and see
what they change. Nothing leaves the machine; uploads are removed once they are classified. Ctrl-C ends it. Needs
gradio: pip install 'fairseq-neupronet[serve]'.
"""


def add_serve(subparsers) -> None:
    """Add ``serve``."""
    parser = subparsers.add_parser("serve", help="try a model on a page in the browser", description=_SERVE)
    add_model_options(parser)
    parser.add_argument(
        "--bank",
        metavar="FILE",
        help="profile bank to begin with and to save to; made where it is "
        "missing (default: profiles are gone when the page ends)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=7860, metavar="N", help="port, 0 for any free one (default: %(default)s)"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=60, metavar="N", help="length of a clip at most (default: %(default)s)"
    )
    parser.add_argument(
        "--max-megabytes", type=float, default=20, metavar="N", help="size of an upload at most (default: %(default)s)"
    )
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> None:
    with quiet_libraries():
        from fairseq_neupronet.serving.server import is_loopback, listen, require_gradio, serve
        from fairseq_neupronet.serving.session import Limits, Session

        require_gradio()
        limits = Limits(arguments.max_seconds, arguments.max_megabytes)
        with contextlib.closing(listen(arguments.host, arguments.port)) as listener:
            session = Session(load_model(arguments), limits, arguments.bank)
            if not is_loopback(arguments.host):
                print(
                    f"warning: whoever reaches {arguments.host} may use this page, enrol and forget profiles: it has "
                    "no password",
                    flush=True,
                )
            address = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
            print(f"http://{address}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                serve(session, listener, arguments.host)
