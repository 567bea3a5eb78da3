"""OpenID Connect: the authorization code flow with PKCE, and the check of the ID token that it ends with.

Stricter than OpenID Connect Core 3.1.3.7 demands: only asymmetric signatures, no audience beside this client, and a
nonce, a subject and an expiry are required. docs/adr/0027 gives the reasons.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from datetime import timedelta
from hmac import compare_digest
from threading import BoundedSemaphore
from time import monotonic, time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import jwt
import requests
import structlog
from urllib3.exceptions import HTTPError

from authsvc.accounts.users import Origin
from authsvc.addresses import is_loopback
from authsvc.credentials.hashing import slot
from authsvc.credentials.usernames import directory_username
from authsvc.errors import Busy, Unauthenticated
from authsvc.identity.confirmed import MAX_SUBJECT, ConfirmedIdentity, roles_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authsvc.settings import Settings

log = structlog.get_logger()

# Asymmetric algorithms only, with the type of their keys: a public key must never be usable as a shared secret.
ALGORITHMS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
LEEWAY_SECONDS = 60
MAX_ANSWER_BYTES = 512 * 1024
PENDING_SECONDS = 600
_TIMEOUT_SECONDS = 5.0
_METADATA_SECONDS = 600.0
_ERROR_CODE = re.compile(r"[a-z_]{1,40}")
_REQUIRED_CLAIMS = ["iss", "sub", "aud", "exp", "iat"]


class PendingSignIn(NamedTuple):
    """A sign-in that was sent to the provider. Its browser keeps it in the signed session cookie until it returns."""

    state: str
    nonce: str
    verifier: str
    leads_to: str
    begun_at: float


class ProviderSignIn(NamedTuple):
    """A finished sign-in. The ID token is kept for the provider's sign-out, which asks for it as a hint."""

    identity: ConfirmedIdentity
    id_token: str


class Provider:
    """One OpenID provider. Up to `slots` requests to it run at a time; beyond that a sign-in is `Busy` at once.

    Its metadata is kept for 10 minutes. Its keys are fetched at each sign-in, so a rotation needs no cache to expire.
    """

    def __init__(self, settings: Settings, slots: int) -> None:
        self._issuer = settings.oidc_issuer or ""
        self._client_id = settings.oidc_client_id or ""
        self._client_secret = settings.oidc_client_secret
        self._scopes = settings.oidc_scopes
        self._username_claim = settings.oidc_username_claim
        self._groups_claim = settings.oidc_groups_claim
        self._roles = settings.oidc_roles or {}
        self._lasts = timedelta(days=settings.oidc_max_age_days)
        self._ca_file = settings.oidc_ca_file
        self._slots = BoundedSemaphore(slots)
        self._metadata: tuple[float, dict[str, Any]] = (0.0, {})
        self.name = settings.oidc_name or urlsplit(self._issuer).netloc

    def begin(self, redirect_uri: str, leads_to: str) -> tuple[str, PendingSignIn]:
        """Return the address at the provider to send the browser to, and what has to be kept until it returns."""
        endpoint = self._endpoint("authorization_endpoint")
        pending = PendingSignIn(
            secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(32), leads_to, time()
        )
        challenge = base64.urlsafe_b64encode(hashlib.sha256(pending.verifier.encode()).digest()).rstrip(b"=")
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect_uri,
            "scope": self._scopes,
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": challenge.decode(),
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", pending

    def finish(self, pending: PendingSignIn, answer: Mapping[str, str], redirect_uri: str) -> ProviderSignIn:
        """Return whom the provider has confirmed; `answer` are the parameters with which the browser has returned.

        `Unauthenticated` if they do not belong to this sign-in or the provider refused it, `Busy` if it is away.
        """
        if not compare_digest(pending.state.encode(), answer.get("state", "").encode("utf-8", "replace")):
            raise _refused("state")
        if time() - pending.begun_at > PENDING_SECONDS:
            raise Unauthenticated("the sign-in took longer than 10 minutes; start it again", "sign-in-expired")
        metadata = self._discovered()
        given_issuer = answer.get("iss")  # RFC 9207
        if given_issuer is None and metadata.get("authorization_response_iss_parameter_supported") is True:
            raise _refused("iss of the answer is missing")
        if given_issuer is not None and given_issuer != self._issuer:
            raise _refused("iss of the answer")
        if "error" in answer or "code" not in answer:
            code = answer.get("error", "")
            reason = code if _ERROR_CODE.fullmatch(code) else "no code"
            raise Unauthenticated(f"{self.name} refused the sign-in: {reason}", "sign-in-refused")
        id_token = self._redeem(answer["code"], pending.verifier, redirect_uri)
        keys = self._request("GET", self._endpoint("jwks_uri")).get("keys")
        claims = verified_claims(id_token, keys, self._issuer, self._client_id, pending.nonce)
        return ProviderSignIn(self._identity(claims), id_token)

    def sign_out_address(self, id_token: str, back_to: str) -> str | None:
        """Return the provider's address that ends its own session; None if it offers none or is away.

        Without an ID token the provider may ask the person first.
        """
        try:
            if "end_session_endpoint" not in self._discovered():
                return None
            endpoint = self._endpoint("end_session_endpoint")
        except (Busy, Unauthenticated):
            return None
        hint = {"id_token_hint": id_token} if id_token else {}
        query = {**hint, "client_id": self._client_id, "post_logout_redirect_uri": back_to}
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    def _identity(self, claims: dict[str, Any]) -> ConfirmedIdentity:
        groups = claims.get(self._groups_claim)
        groups = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        # Anybody can enter any address at some providers, so only a verified one may name a user or give roles.
        if "email" in (self._groups_claim, self._username_claim) and claims.get("email_verified") is not True:
            raise Unauthenticated(f"{self.name} has not verified your mail address", "mail-not-verified")
        username = claims.get(self._username_claim)
        if not isinstance(username, str):
            message = f"{self.name} sent no claim {self._username_claim}; see AUTHSVC_OIDC_USERNAME_CLAIM"
            raise Unauthenticated(message, "unusable-username")
        roles = roles_of((group for group in groups if isinstance(group, str)), self._roles)
        name = directory_username(username)
        return ConfirmedIdentity(Origin.OIDC, self._issuer, claims["sub"], name, roles, self._lasts)

    def _redeem(self, code: str, verifier: str, redirect_uri: str) -> str:
        """Exchange the code for an ID token."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "client_id": self._client_id,
        }
        basic = None
        # The default of OpenID Connect Discovery is client_secret_basic.
        if self._client_secret is not None:
            methods = self._discovered().get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            if "client_secret_basic" in methods:
                basic = (quote(self._client_id, safe=""), quote(self._client_secret, safe=""))  # RFC 6749 2.3.1
            else:
                form["client_secret"] = self._client_secret
        id_token = self._request("POST", self._endpoint("token_endpoint"), data=form, auth=basic).get("id_token")
        if not isinstance(id_token, str):
            raise _refused("no ID token")
        return id_token

    def _endpoint(self, name: str) -> str:
        address = self._discovered().get(name)
        parts = urlsplit(address) if isinstance(address, str) else urlsplit("")
        secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
        if not isinstance(address, str) or not secure:
            raise _refused(f"no https address as {name}")
        return address

    def _discovered(self) -> dict[str, Any]:
        """Return the provider's metadata (OpenID Connect Discovery 4)."""
        at, metadata = self._metadata
        if not metadata or monotonic() - at > _METADATA_SECONDS:
            metadata = self._request("GET", self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            if metadata.get("issuer") != self._issuer:
                raise _refused("issuer of the metadata is not AUTHSVC_OIDC_ISSUER")
            self._metadata = monotonic(), metadata
        return metadata

    def _request(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        """Return the JSON object of an answer; `Unauthenticated` for a 4xx to a POST, otherwise `Busy`."""
        with slot(self._slots, _away()), requests.Session() as session:
            session.trust_env = False  # no passwords of .netrc
            try:
                with session.request(
                    method,
                    url,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                    timeout=_TIMEOUT_SECONDS,
                    verify=self._ca_file or True,
                    allow_redirects=False,
                    stream=True,
                    **options,
                ) as answer:
                    body = answer.raw.read(MAX_ANSWER_BYTES + 1, decode_content=True)
                content = json.loads(body) if len(body) <= MAX_ANSWER_BYTES else None
            except (requests.RequestException, HTTPError, OSError, ValueError, RecursionError) as error:
                log.warning("OpenID provider cannot be used", host=urlsplit(url).netloc, error=type(error).__name__)
                raise _away() from None
        if not isinstance(content, dict) or answer.status_code != 200:  # noqa: PLR2004
            code = str(content.get("error", "")) if isinstance(content, dict) else ""
            reason = code if _ERROR_CODE.fullmatch(code) else None
            log.warning("OpenID provider refused", host=urlsplit(url).netloc, status=answer.status_code, error=reason)
            if method == "POST" and reason == "invalid_grant":
                raise _refused("the code was refused")
            raise _away()
        return content


def verified_claims(token: str, keys: Any, issuer: str, client_id: str, nonce: str) -> dict[str, Any]:
    """Return the claims of an ID token for this client and sign-in; `Unauthenticated` if any check fails.

    `keys` is the content of the provider's JWK set.
    """
    try:
        header = jwt.get_unverified_header(token)
        algorithm = header.get("alg", "")
        if algorithm not in ALGORITHMS:
            raise _refused("algorithm")
        fitting = [key for key in keys if isinstance(key, dict) and _fits(key, algorithm, header.get("kid"))]
        if len(fitting) != 1:
            raise _refused("no key of the provider fits")
        claims: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWK(fitting[0], algorithm),
            algorithms=[algorithm],
            audience=client_id,
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": _REQUIRED_CLAIMS, "enforce_minimum_key_length": True},
        )
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        raise _refused(type(error).__name__) from None
    if claims["aud"] not in (client_id, [client_id]) or claims.get("azp", client_id) != client_id:
        raise _refused("audience")
    given = claims.get("nonce")
    if not isinstance(given, str) or not compare_digest(given.encode("utf-8", "replace"), nonce.encode()):
        raise _refused("nonce")
    if not claims["sub"].strip() or len(claims["sub"]) > MAX_SUBJECT:
        raise _refused("subject")
    return claims


def _fits(key: dict[str, Any], algorithm: str, kid: Any) -> bool:
    """Return whether a key may have made a signature. A token without `kid` fits the provider's only such key."""
    kind, wanted_id = key.get("kty"), key.get("kid") if kid is None else kid
    usable = key.get("use", "sig") == "sig" and key.get("alg", algorithm) == algorithm
    return kind == ALGORITHMS[algorithm] and usable and key.get("kid") == wanted_id


def _refused(reason: str) -> Unauthenticated:
    """Log why a sign-in was refused, and return an error that does not say it: it may be an attack."""
    log.warning("sign-in at the OpenID provider refused", reason=reason)
    return Unauthenticated("the sign-in at the provider is not valid; start it again", "sign-in-refused")


def _away() -> Busy:
    message = "the OpenID provider cannot be reached; try again later, or sign in as a local administrator"
    return Busy(message, "provider-unavailable")
