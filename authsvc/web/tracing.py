"""Request id, log line and security headers of every request, and the removal of API tokens from its address."""

from __future__ import annotations

import re
import uuid
from time import perf_counter
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

import structlog
from flask import Flask, Response, g, request

from authsvc.observability import metrics
from authsvc.observability.redaction import gives_token, without_secrets, without_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


TOKEN_KEY = "authsvc.api_token"  # noqa: S105 - the key in the WSGI environment, not a token
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BROKER = "/auth/"
_PARAMETER = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_QUIET = ("/healthz", "/readyz", "/metrics")

log = structlog.get_logger()


class TokenRedaction:
    """WSGI middleware that removes `apiToken` from the address before any code can log or forward it.

    Other spellings of the parameter are removed too, but do not authenticate. In a path a mark replaces the token, so
    that a path without a resource does not become one with a resource.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        query = environ.get("QUERY_STRING", "")
        if query:
            kept = []
            for part in query.split("&"):
                name, _, value = part.partition("=")
                if unquote_plus(name) == "apiToken":
                    environ[TOKEN_KEY] = unquote_plus(value)
                elif not gives_token(part):
                    kept.append(without_tokens(part))
            environ["QUERY_STRING"] = "&".join(kept)
        environ["PATH_INFO"] = without_tokens(environ.get("PATH_INFO", ""), ";apiToken=...")
        # Copies of the address, and the address of the referring page.
        for copy in ("RAW_URI", "REQUEST_URI", "HTTP_REFERER"):
            if copy in environ:
                environ[copy] = without_secrets(environ[copy])
        return self._app(environ, start_response)


def register(app: Flask) -> None:
    """Give every request its id, log line and headers."""
    app.before_request(_begin)
    app.after_request(_finish)


def _begin() -> None:
    if request.path.startswith(_BROKER):
        return  # brokers wait for these answers, and the webhooks count them
    g.started = perf_counter()
    offered = request.headers.get("X-Request-Id", "")
    g.request_id = offered if _REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _finish(response: Response) -> Response:
    if request.path.startswith(_BROKER):
        return response
    response.headers["X-Request-Id"] = g.request_id
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    seconds = perf_counter() - g.started
    metrics.observe_request(request.method, _route(), response.status_code, seconds)
    if not (request.path.startswith(_QUIET) or g.get("quiet")):
        user = g.get("caller")
        log.info(
            "request",
            method=request.method,
            path=request.path,
            status=response.status_code,
            milliseconds=round(seconds * 1000, 1),
            user=user.username if user else None,
            address=request.remote_addr,
        )
    return response


def _route() -> str:
    """Return the template of the matched route, such as `/api/users/{username}`; `unmatched` without one."""
    rule = request.url_rule
    return _PARAMETER.sub(r"{\1}", rule.rule) if rule else "unmatched"
