"""Enrolment over Secure Transport (RFC 7030), a protocol that many devices support.

`simpleenroll` is a registration over REST: HTTP Basic carries username and password, and the body is the CSR. A user
with this name and password gets its certificate at once. An unknown client becomes a pending registration (`202`).
A reverse proxy terminates TLS, so clients authenticate by password, which RFC 7030 section 3.2.3 allows. To renew a
certificate with its key instead, use `POST /api/certificates/renew`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from flask import Blueprint, Response, request

from authsvc.accounts import users
from authsvc.credentials.usernames import validate_username
from authsvc.errors import Busy, TooMany, Unauthenticated, invalid
from authsvc.pki import authorities, csr
from authsvc.pki.authorities import signing_policy
from authsvc.web.request_context import actor_for, catch_up, services
from registry.api.routes import RETRY_SECONDS, registry
from registry.limits import CheckedAgainst, LimitExceeded
from registry.rest_registration import Granted, RegistrationRequest

if TYPE_CHECKING:
    from authsvc.accounts.sign_in.methods import SignIn

blueprint = Blueprint("est", __name__, url_prefix="/.well-known/est")


@blueprint.get("/cacerts")
def cacerts() -> Response:
    """Return the certificates of the authorities (RFC 7030 section 4.1)."""
    return _certs_only(authorities.certificates_pem())


@blueprint.before_request
def _prepare() -> None:
    request.max_content_length = registry().max_request_bytes
    catch_up()


@blueprint.post("/simpleenroll")
def simpleenroll() -> Response:
    """Issue a certificate to a user, or register an unknown client (RFC 7030 section 4.2)."""
    username, password = _credentials()
    if services().policy.snapshot.users.get(username):
        return _issue(_known_user(username, password))
    registration = RegistrationRequest(username, password, _signing_request(username), address=request.remote_addr)
    outcome = registry().rest_registration.register(registration)
    if isinstance(outcome, Granted):
        return _certs_only(outcome.certificate or "")
    return Response("pending", 202, {"Retry-After": RETRY_SECONDS}, content_type="text/plain")


@blueprint.post("/simplereenroll")
def simplereenroll() -> Response:
    """Issue a certificate for another key of a user (RFC 7030 section 4.2.2)."""
    return _issue(services().sign_ins.with_password(*_credentials(), request.remote_addr))


def _known_user(username: str, password: str) -> SignIn:
    """Return the sign-in of a user with this password.

    It is limited like a registration, because the answer shows that the user exists.
    """
    limits = registry().rest_registration.limits
    digest = limits.digest_of(username, password, None)
    exceeded: LimitExceeded | None = None
    try:
        limits.count(username, request.remote_addr, digest, CheckedAgainst.USER)
    except LimitExceeded as error:
        exceeded = error
    try:
        signed_in = services().sign_ins.with_password(username, password, request.remote_addr)
    except (Unauthenticated, TooMany, Busy):
        limits.unmark_verified(digest)
        if exceeded:
            raise exceeded from None
        raise
    limits.mark_verified(digest)
    return signed_in


def _issue(signed_in: SignIn) -> Response:
    username, actor = signed_in.user.username, actor_for(signed_in.user, signed_in.proof)
    services().sign_ins.complete(signed_in, actor, "")
    key = _signing_request(username).public_key
    issued = users.issue_certificate(actor, username, key, signing_policy(services().settings))
    return _certs_only(issued.record.certificate)


def _credentials() -> tuple[str, str]:
    given = request.authorization
    if given is None or given.type != "basic" or not given.username or not given.password:
        raise Unauthenticated("HTTP Basic with username and password is needed")
    return validate_username(given.username), given.password


def _signing_request(username: str) -> csr.SigningRequest:
    try:
        der = base64.b64decode(b"".join(request.get_data().split()), validate=True)
    except (binascii.Error, ValueError):
        raise invalid("csr", "must be a PKCS#10 request, Base64 of DER") from None
    return csr.read_der(der, username)


def _certs_only(pem: str) -> Response:
    der = pkcs7.serialize_certificates(x509.load_pem_x509_certificates(pem.encode()), Encoding.DER)
    headers = {"Content-Transfer-Encoding": "base64"}
    body = base64.encodebytes(der)
    return Response(body, 200, headers, content_type="application/pkcs7-mime; smime-type=certs-only")
