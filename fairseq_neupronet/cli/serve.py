"""``neupronet serve``: a page in the browser on which a model is tried."""

import argparse
import contextlib

from fairseq_neupronet.cli.model_options import add_model_options, load_model, quiet_libraries

_DESCRIPTION = """\
Open a page on this machine: drop or record a clip, see its spectrogram and class probabilities, enrol profiles, and see
what they change. Nothing leaves the machine; uploads are removed once they are heard. Ctrl-C ends it. Needs gradio: pip
install 'fairseq-neupronet[serve]'.
"""


def add_parser(subparsers) -> None:
    """Add ``serve``."""
    parser = subparsers.add_parser("serve", help="try a model on a page in the browser", description=_DESCRIPTION)
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
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
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
