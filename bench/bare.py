"""Bare gunicorn workers that always answer yes, as a reference for the webhooks."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from tests.broker import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

WORKER_CLASSES = ("asgi", "gthread", "gevent", "sync")
_BODY = b'{"ok":true,"error":""}'
_CHECKOUT = Path(__file__).parents[1]
_GUNICORN = str(Path(sys.executable).parent / "gunicorn")


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Read the request and answer `ok`."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"22")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _BODY})


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the request and answer `ok`."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(_BODY)))])
    return [_BODY]


@contextmanager
def running(worker_class: str) -> Iterator[int]:
    """Run the callable in one of gunicorn's worker classes and yield its port."""
    port = free_port()
    command = [_GUNICORN, "-k", worker_class, "-b", f"127.0.0.1:{port}", "--keep-alive", "3600", "--no-control-socket"]
    callable_ = "bench.bare:asgi" if worker_class == "asgi" else "bench.bare:wsgi"
    with tempfile.TemporaryFile() as log:
        # A session of its own, like the service, because Linux distributes processor time per session.
        process = subprocess.Popen([*command, callable_], stdout=log, stderr=log, cwd=_CHECKOUT, start_new_session=True)
        try:
            _wait_for(f"http://127.0.0.1:{port}/")
            yield port
        finally:
            process.terminate()
            process.wait(20)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            requests.get(url, timeout=1)
        except requests.RequestException:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the bare callable did not start")
