"""Answers of a provider that are forged, for somebody else, or too large: none of them signs anybody in."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from authsvc.errors import AuthsvcError, Busy, Unauthenticated
from authsvc.identity.oidc import LEEWAY_SECONDS, MAX_ANSWER_BYTES, PENDING_SECONDS, Provider
from authsvc.settings import from_environment
from tests.identity.hostile_provider import CLIENT_ID, HostileProvider, unsigned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from authsvc.identity.oidc import ProviderSignIn

    Forge = Callable[[HostileProvider, dict[str, Any]], Any]

HERE = "http://127.0.0.1:8080/admin/sign-in/callback"
_OTHER_KEY = rsa.generate_private_key(65_537, 2048)
_WEAK_KEY = rsa.generate_private_key(65_537, 1024)


@pytest.fixture
def hostile() -> Iterator[HostileProvider]:
    with HostileProvider() as provider:
        yield provider


def client(hostile: HostileProvider, **settings: str) -> Provider:
    chosen = {"issuer": hostile.issuer, "client_id": CLIENT_ID, "roles": '{"plant-admins": ["admin"]}', **settings}
    return Provider(from_environment({f"AUTHSVC_OIDC_{name.upper()}": value for name, value in chosen.items()}), 4)


def sign_in(hostile: HostileProvider, **settings: str) -> ProviderSignIn:
    provider = client(hostile, **settings)
    address, pending = provider.begin(HERE, "/admin")
    hostile.nonce = parse_qs(urlsplit(address).query)["nonce"][0]
    return provider.finish(pending, {"state": pending.state, "code": "x"}, HERE)


def with_claims(**changed: Any) -> Forge:
    """Return a token with other claims; None removes one."""

    def forge(hostile: HostileProvider, claims: dict[str, Any]) -> Any:
        merged = claims | changed
        return hostile.signed({name: value for name, value in merged.items() if value is not None})

    return forge


def _by_public_key(hostile: HostileProvider, claims: dict[str, Any]) -> str:
    """Return a token whose HMAC has the provider's public key as its secret."""
    head, body, _ = unsigned({"alg": "HS256", "kid": "the key"}, claims).split(".")
    signature = hmac.new(hostile.public_pem(), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return unsigned({"alg": "HS256", "kid": "the key"}, claims, signature)


NOW = int(time.time())
FORGED: dict[str, Forge] = {
    "no signature": lambda _, claims: unsigned({"alg": "none", "kid": "the key"}, claims),
    "None in other letters": lambda _, claims: unsigned({"alg": "nOnE", "kid": "the key"}, claims),
    "no algorithm": lambda _, claims: unsigned({"kid": "the key"}, claims),
    "an algorithm that is no text": lambda _, claims: unsigned({"alg": ["RS256"], "kid": "the key"}, claims),
    "the public key as a secret": _by_public_key,
    "the client's secret": lambda _, claims: jwt.encode(claims, "x" * 64, "HS256", {"kid": "the key"}),
    "a key of somebody else": lambda _, claims: jwt.encode(claims, _OTHER_KEY, "RS256", {"kid": "the key"}),
    "an unknown key": lambda hostile, claims: hostile.signed(claims, kid="another"),
    "another algorithm than the key's": lambda hostile, claims: jwt.encode(
        claims, hostile.key, "PS256", {"kid": "the key"}
    ),
    "another issuer": with_claims(iss="https://other.example"),
    "no issuer": with_claims(iss=None),
    "another audience": with_claims(aud="another-client"),
    "another audience, for us": with_claims(aud="another-client", azp=CLIENT_ID),
    "one more audience": with_claims(aud=[CLIENT_ID, "another-client"], azp=CLIENT_ID),
    "no audience": with_claims(aud=None),
    "an empty audience": with_claims(aud=[]),
    "another authorized party": with_claims(azp="another-client"),
    "expired": with_claims(exp=NOW - LEEWAY_SECONDS - 1),
    "no expiry": with_claims(exp=None),
    "an expiry that is no number": with_claims(exp="tomorrow"),
    "issued in the future": with_claims(iat=NOW + 86_400),
    "not valid yet": with_claims(nbf=NOW + 86_400),
    "no nonce": with_claims(nonce=None),
    "another nonce": with_claims(nonce="x" * 43),
    "a nonce that is no text": with_claims(nonce=["x"]),
    "an empty nonce": with_claims(nonce=""),
    "no subject": with_claims(sub=None),
    "an empty subject": with_claims(sub=""),
    "a blank subject": with_claims(sub=" "),
    "a subject that is no text": with_claims(sub=1),
    "a subject that is too long": with_claims(sub="x" * 256),
    "no token": lambda *_: None,
    "a token that is no text": lambda *_: {"alg": "RS256"},
    "text that is no token": lambda *_: "hunter2",
    "nothing": lambda *_: "",
}


def test_right_answer_signs_in(hostile: HostileProvider) -> None:
    identity = sign_in(hostile).identity
    assert (identity.issuer, identity.subject, identity.username) == (hostile.issuer, "1", "alice")
    assert identity.roles == ("admin",)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_forged_tokens_are_refused(hostile: HostileProvider, forge: Forge) -> None:
    hostile.token = lambda claims: forge(hostile, claims)
    with pytest.raises(Unauthenticated) as error:
        sign_in(hostile)
    assert error.value.message == "the sign-in at the provider is not valid; start it again"


def test_clocks_may_differ_by_a_minute(hostile: HostileProvider) -> None:
    now = int(time.time())
    hostile.token = lambda claims: with_claims(exp=now - 30, iat=now + 30)(hostile, claims)
    assert sign_in(hostile).identity.subject == "1"


def test_audience_may_be_a_list_of_this_client(hostile: HostileProvider) -> None:
    hostile.token = lambda claims: with_claims(aud=[CLIENT_ID])(hostile, claims)
    assert sign_in(hostile).identity.subject == "1"


def test_short_keys_are_refused(hostile: HostileProvider) -> None:
    hostile.key = _WEAK_KEY
    with pytest.warns(jwt.warnings.InsecureKeyLengthWarning), pytest.raises(Unauthenticated):
        sign_in(hostile)


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"token_endpoint": "http://other.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": 5},
        {"authorization_response_iss_parameter_supported": True},
    ],
)
def test_metadata_of_others_and_insecure_addresses_are_refused(
    hostile: HostileProvider, metadata: dict[str, Any]
) -> None:
    hostile.metadata = metadata
    with pytest.raises(Unauthenticated):
        sign_in(hostile)


@pytest.mark.parametrize("body", [b"{", b"[]", b"[" * 100_000, b" " * (MAX_ANSWER_BYTES + 1) + b"{}", b"\xff", b""])
def test_answers_that_are_no_json_or_too_large_count_as_away(hostile: HostileProvider, body: bytes) -> None:
    hostile.body = body
    with pytest.raises(Busy) as error:
        client(hostile).begin(HERE, "/admin")
    assert error.value.code == "provider-unavailable"


def test_answer_that_comes_too_late_is_refused(hostile: HostileProvider) -> None:
    provider = client(hostile)
    _, pending = provider.begin(HERE, "/admin")
    late = pending._replace(begun_at=time.time() - PENDING_SECONDS - 1)
    with pytest.raises(Unauthenticated) as error:
        provider.finish(late, {"state": late.state, "code": "x"}, HERE)
    assert error.value.code == "sign-in-expired"


@pytest.mark.parametrize("claims", [{"email_verified": False}, {"email_verified": "true"}, {}])
@pytest.mark.parametrize("setting", ["groups_claim", "username_claim"])
def test_mail_address_counts_only_if_verified(hostile: HostileProvider, setting: str, claims: dict[str, Any]) -> None:
    hostile.token = lambda right: with_claims(email="admin@plant.example", **claims)(hostile, right)
    with pytest.raises(AuthsvcError) as error:
        sign_in(hostile, **{setting: "email"})
    assert error.value.code == "mail-not-verified"


def test_verified_mail_address_gives_roles(hostile: HostileProvider) -> None:
    hostile.token = lambda right: with_claims(email="al@plant.example", email_verified=True)(hostile, right)
    settings = {"groups_claim": "email", "username_claim": "email", "roles": '{"al@plant.example": ["admin"]}'}
    identity = sign_in(hostile, **settings).identity
    assert (identity.username, identity.roles) == (None, ("admin",))


@pytest.mark.parametrize("groups", [None, [], 5, {"plant-admins": 1}, [["plant-admins"], 1], "Plant-Admins"])
def test_other_forms_of_groups_give_no_roles(hostile: HostileProvider, groups: Any) -> None:
    hostile.token = lambda right: with_claims(groups=groups)(hostile, right)
    assert sign_in(hostile).identity.roles == ()


def test_provider_without_sign_out_is_no_refusal(hostile: HostileProvider, capsys: pytest.CaptureFixture[str]) -> None:
    assert client(hostile).sign_out_address("an ID token", "http://127.0.0.1:8080/admin/sign-in") is None
    assert "refused" not in capsys.readouterr().out
