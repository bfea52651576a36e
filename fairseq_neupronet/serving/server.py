"""The page's server: loopback, no telemetry, one folder for uploads that goes with it. Needs gradio.

A guard decides what is answered at all: gradio has many more routes than one page needs.
"""

import contextlib
import importlib.util
import ipaddress
import os
import re
import socket
import tempfile
from urllib.parse import urlsplit

from fairseq_neupronet.errors import InputError
from fairseq_neupronet.serving.session import MEGABYTE, Session

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_GET = re.compile(
    r"/|/config/?|/favicon\.ico|/theme\.css|/manifest\.json|/(assets|static|svelte)/.*"
    r"|/gradio_api/(theme\.css|app_id/?|startup-events|queue/data|upload_progress|heartbeat/\w+)"
)
_POST = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset/?)")
_HEADERS = [
    # Nothing from other hosts, whatever a library's page asks for.
    (
        b"content-security-policy",
        b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; "
        b"base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]
_FORM = 0.1  # megabytes of a form around its files


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


class Guard:
    """An ASGI application around another one.

    Args:
        app: answers what is let through.
        hosts: by which a browser may call the server, so that no other site's name can stand for it; None for any.
        megabytes: of an upload at most, all of its files together.
    """

    def __init__(self, app, hosts: set[str] | None, megabytes: float):
        self.app, self.hosts, self.megabytes = app, hosts, megabytes

    async def __call__(self, scope, receive, send) -> None:
        """Pass a request on, or refuse it in a sentence."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope) if scope["type"] == "http" else (403, "this page has no web sockets")
        if refusal:
            await _answer(send, *refusal)
            return

        async def send_with_headers(message) -> None:
            if message["type"] == "http.response.start":
                names = {name for name, _ in _HEADERS}
                kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in names]
                message = message | {"headers": kept + _HEADERS}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _refusal(self, scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self.hosts is not None and _name_in(host) not in self.hosts:
            return 403, "this page is not known by that name"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "another site's page may not use this one"
        method, path = scope["method"], scope["path"]
        if not {"GET": _GET, "HEAD": _GET, "POST": _POST}.get(method, re.compile(r"(?!)")).fullmatch(path):
            return 404, "there is no such page"
        if method == "POST":
            length = headers.get("content-length", "")
            if not length.isdigit():
                return 411, "say how long the upload is"
            has = int(length) / MEGABYTE
            if has > self.megabytes + _FORM:
                return 413, (
                    f"the upload has {has:.1f} MB, and this page takes {self.megabytes:g}; cut the recording, "
                    "or use neupronet predict"
                )
        return None


def _name_in(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


async def _answer(send, status: int, sentence: str) -> None:
    head = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": sentence.encode()})


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
