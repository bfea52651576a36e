"""The page's server: loopback, no telemetry, one folder for uploads that goes with it. Needs gradio."""

import contextlib
import importlib.util
import ipaddress
import os
import socket
import tempfile

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.serving.guard import Guard
from fairseq_neupronet.serving.session import MEGABYTE, Session

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def require_gradio() -> None:
    """Raises InputError where gradio is missing; it takes seconds to import."""
    if importlib.util.find_spec("gradio") is None:
        raise InputError("neupronet serve needs gradio; install it with pip install 'fairseq-neupronet[serve]'")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: no such host here, a port that is taken or that is none.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: give a number from 0 (any free one) to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, kind))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
            stack.pop_all()
            return listener
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"--host {host} --port {port}: cannot be listened at ({reason}); give another port, or stop what has it"
        ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK


def serve(session: Session, listener: socket.socket, host: str) -> None:
    """Serve the page until it is interrupted.

    Args:
        session: what the page works with.
        listener: of :func:`listen`.
        host: as it was asked for.
    """
    with tempfile.TemporaryDirectory(prefix="neupronet-") as folder:
        # gradio reads them when it is imported.
        os.environ.update(
            GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1"
        )
        tempfile.tempdir = folder  # whatever else writes there is gone with it
        import fastapi
        import gradio
        import uvicorn

        from fairseq_neupronet.serving.page import CSS, make_page

        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        megabytes = session.limits.megabytes
        gradio.mount_gradio_app(
            app,
            make_page(session),
            path="",
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            max_file_size=int(megabytes * MEGABYTE),
            css=CSS,
            blocked_paths=["/"],
            theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )
        guard = Guard(app, _LOOPBACK | {host} if is_loopback(host) else None, megabytes)
        config = uvicorn.Config(guard, log_level="critical", access_log=False, timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])
