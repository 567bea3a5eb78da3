"""Enrolment over Secure Transport (RFC 7030), the protocol that many devices speak already.

`simpleenroll` is the explicit flow in another dress: HTTP Basic names the client and is its password, the body is its
signing request. A user with that name and password gets its certificate at once, a stranger becomes a pending
registration (`202`). TLS is the business of the proxy in front, so clients prove themselves by password here, which
RFC 7030 section 3.2.3 allows; to renew with the current key instead there is `POST /api/certificates/renew`.
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
from authsvc.policy.actors import Proof
from authsvc.web.request_context import actor_for, catch_up, services
from registry.api.routes import RETRY_SECONDS, registry
from registry.limits import BeyondLimit, Holder
from registry.rest_registration import Granted, RegistrationRequest

if TYPE_CHECKING:
    from authsvc.policy.snapshot import UserPolicy

blueprint = Blueprint("est", __name__, url_prefix="/.well-known/est")


@blueprint.get("/cacerts")
def cacerts() -> Response:
    """Give the authorities' certificates (RFC 7030 section 4.1)."""
    return _certs_only(authorities.certificates_pem())


@blueprint.before_request
def _prepare() -> None:
    request.max_content_length = registry().max_request_bytes
    catch_up()


@blueprint.post("/simpleenroll")
def simpleenroll() -> Response:
    """Enrol a client: at once for a user, after an administrator's grant for a stranger (RFC 7030 section 4.2)."""
    username, password = _credentials()
    if services().policy.snapshot.users.get(username):
        return _issue(_known_user(username, password))
    application = RegistrationRequest(username, password, _signing_request(username), address=request.remote_addr)
    outcome = registry().explicit.register(application)
    if isinstance(outcome, Granted):
        return _certs_only(outcome.certificate or "")
    return Response("pending", 202, {"Retry-After": RETRY_SECONDS}, content_type="text/plain")


@blueprint.post("/simplereenroll")
def simplereenroll() -> Response:
    """Certify another key for a user (RFC 7030 section 4.2.2)."""
    return _issue(services().sign_ins.check_password(*_credentials(), request.remote_addr))


def _known_user(username: str, password: str) -> UserPolicy:
    """Return the user with this password; counted like a registration, since the answer tells that the user exists."""
    limits = registry().explicit.limits
    proof = limits.proof_of(username, password, None)
    beyond: BeyondLimit | None = None
    try:
        limits.count(username, request.remote_addr, proof, Holder.USER)
    except BeyondLimit as error:
        beyond = error
    try:
        user = services().sign_ins.check_password(username, password, request.remote_addr)
    except (Unauthenticated, TooMany, Busy):
        limits.forget(proof)
        if beyond:
            raise beyond from None
        raise
    limits.remember(proof)
    return user


def _issue(user: UserPolicy) -> Response:
    wanted = _signing_request(user.username)
    actor = actor_for(user, Proof(password_hash=user.password_hash))
    issued = users.issue_certificate(actor, user.username, wanted.public_key, signing_policy(services().settings))
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
