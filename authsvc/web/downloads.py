"""Public downloads for brokers and clients: authority certificates and revocation lists."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Blueprint, Response, request

from authsvc.pki import authorities
from authsvc.pki.authorities import signing_policy
from authsvc.web.request_context import services

blueprint = Blueprint("pki", __name__, url_prefix="/pki")


@blueprint.get("/ca.pem")
def ca_pem() -> Response:
    """Return the certificates of every trusted authority as PEM, for a broker's `cafile`."""
    return _cacheable(authorities.certificates_pem().encode(), "application/x-pem-file")


@blueprint.get("/crl.pem")
def crl_pem() -> Response:
    """Return the revocation list of every trusted authority as PEM, for a broker's `crlfile`."""
    lists = authorities.revocation_lists(signing_policy(services().settings))
    return _cacheable("".join(each.pem for each in lists).encode(), "application/x-pem-file")


@blueprint.get("/crl.der")
def crl_der() -> Response:
    """Return the revocation list of the signing authority only: a DER file holds one list."""
    newest, *_ = authorities.revocation_lists(signing_policy(services().settings))
    der = x509.load_pem_x509_crl(newest.pem.encode()).public_bytes(Encoding.DER)
    return _cacheable(der, "application/pkix-crl")


def _cacheable(body: bytes, content_type: str) -> Response:
    """Return a response with an ETag, so that polling an unchanged file costs a 304 without a body."""
    response = Response(body, content_type=content_type)
    response.set_etag(hashlib.sha256(body).hexdigest()[:32])
    response.headers["Cache-Control"] = "no-cache"
    response.date = datetime.now(UTC)
    response.make_conditional(request)
    return response
