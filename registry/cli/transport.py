"""Requests by the standard library: importing `requests` takes longer than registering."""

from __future__ import annotations

import json
import ssl
from http import HTTPStatus
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request, build_opener

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message
    from pathlib import Path

_TIMEOUT_SECONDS = 30
_MAX_BYTES = 1024 * 1024


class UnreachableError(Exception):
    """The server did not answer; a later request may succeed."""


class UntrustedError(Exception):
    """The certificate of the server is not signed by a trusted authority."""


class Answer(NamedTuple):
    """The status, the headers, and the JSON object of the body; an empty one if the body is anything else."""

    status: int
    headers: Message[str, str]
    body: dict[str, Any]


def post(url: str, body: Mapping[str, Any], ca_file: Path | None) -> Answer:
    """Send JSON and return the answer, also one with an error status; `ValueError` if the URL is no http or https URL.

    Without `ca_file` the system's authorities verify the server.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    status, received, content = _send(url, json.dumps(body).encode(), headers, ca_file)
    return Answer(status, received, _json_object(content))


def get(url: str, ca_file: Path | None) -> bytes | None:
    """Return the body of a 200, or None; errors as for `post`."""
    status, _, content = _send(url, None, {}, ca_file)
    return content if status == HTTPStatus.OK else None


def _send(
    url: str, body: bytes | None, headers: Mapping[str, str], ca_file: Path | None
) -> tuple[int, Message[str, str], bytes]:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ValueError(url)
    opener = build_opener(HTTPSHandler(context=ssl.create_default_context(cafile=ca_file)))
    request = Request(url, body, dict(headers))  # noqa: S310 - the scheme is checked above
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return answer.status, answer.headers, answer.read(_MAX_BYTES)
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read(_MAX_BYTES)
    except ValueError:
        raise
    except (OSError, HTTPException) as error:
        if isinstance(error, ssl.SSLError) or isinstance(getattr(error, "reason", None), ssl.SSLError):
            raise UntrustedError from None
        raise UnreachableError(type(error).__name__) from None


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        value: Any = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
