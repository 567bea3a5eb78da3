"""The broker webhooks as Flask views: an adapter of `Webhooks.answer`."""

from __future__ import annotations

from flask import Blueprint, Response, request

from authsvc.broker.goauth_protocol import MAX_BODY, WebhookRequest
from authsvc.web.request_context import services

blueprint = Blueprint("auth", __name__, url_prefix="/auth")


@blueprint.route("/<any(user, superuser, acl):check>", methods=["POST", "PUT", "GET"])
def answer(check: str) -> Response:
    asked = WebhookRequest(
        check,
        request.query_string,
        (request.content_type or "").encode("latin-1", "replace"),
        request.headers.get("Authorization", "").encode("latin-1", "replace"),
        _body(),
        request.environ.get("HTTP_HOST", "").encode("latin-1", "replace"),
        "Origin" in request.headers or "Sec-Fetch-Site" in request.headers,
    )
    status, headers, body = services().webhooks.answer(asked)
    return Response(body, status, [(name.decode(), value.decode()) for name, value in headers])


def _body() -> bytes:
    # Not request.get_data(), which raises 413 for a large body: the broker must get a denial.
    length = request.content_length
    if length is None and not request.environ.get("wsgi.input_terminated"):
        return b""
    limit = MAX_BODY + 1
    try:
        body: bytes = request.environ["wsgi.input"].read(limit if length is None else min(length, limit))
    except OSError:
        return b""
    return body
