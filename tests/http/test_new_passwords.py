"""A new password can revoke all tokens, certificates and browser sessions of a user."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from authsvc.accounts import api_tokens, browser_sessions, users
from authsvc.accounts.sign_in.methods import How, Method, SignIn
from authsvc.accounts.sign_in.passwords import SignIns
from authsvc.pki import certificates, csr
from authsvc.pki.authorities import signing_policy
from authsvc.policy.access import AccessControl
from authsvc.policy.actors import Actor, Via
from authsvc.storage.database import session
from authsvc.storage.models import BrowserSession, Certificate, DisconnectOrder, User
from tests.actors import BOBS_PASSWORD, HASHER, OPERATOR
from tests.http.broker import YES, no
from tests.http.callers import everything_stored, refused_fields
from tests.http.console import stdout_of
from tests.registry.signing import signing_request

if TYPE_CHECKING:
    from flask.testing import FlaskClient

    from authsvc.policy.decision import Decision
    from authsvc.policy.snapshot import UserPolicy
    from authsvc.web.request_context import Services
    from tests.http.broker import Broker
    from tests.http.callers import Caller
    from tests.http.console import Console

NEW = "the next secret of hers"


def create_all_credentials(services: Services, alice: Caller, username: str = "eve") -> tuple[str, str]:
    """Create a user with a token, a certificate and a browser session; return the token and the serial number."""
    alice.creates_user(username, BOBS_PASSWORD, grantTypes=["password", "certificate", "token"])
    token = api_tokens.issue_token(OPERATOR, username, "wall", 12).token
    key = csr.read(signing_request(username), username).public_key
    serial = users.issue_certificate(OPERATOR, username, key, signing_policy(services.settings)).record.serial
    services.policy.catch_up()
    browser_sessions.begin(
        Actor(username, Via.PAGE), How(Method.PASSWORD), services.settings.session_lifetime, "a browser"
    )
    return token, serial


def sessions_of(username: str) -> int:
    with session():
        return BrowserSession.select().join(User).where(User.username == username).count()


def test_new_password_revokes_everything_else_when_asked(services: Services, alice: Caller, broker: Broker) -> None:
    token, serial = create_all_credentials(services, alice)
    assert broker.logs_in("eve", token) == YES
    assert alice.patch("/api/users/eve", {"password": NEW, "revokeOthers": True}).status_code == 200
    assert broker.logs_in("eve", token) == no("invalid-token")
    assert broker.acl("eve", "a", 1, query="grant=certificate") == no("no-valid-certificate")
    assert broker.logs_in("eve", NEW) == YES
    assert certificates.get(serial).reason == "privilegeWithdrawn"
    assert sessions_of("eve") == 0
    with session():
        assert [each.username for each in DisconnectOrder.select()] == ["eve"]


def test_new_password_alone_keeps_tokens_and_certificates(services: Services, alice: Caller, broker: Broker) -> None:
    token, serial = create_all_credentials(services, alice)
    for printed in ({"password": NEW}, {"password": NEW + "!", "revokeOthers": False}):
        assert alice.patch("/api/users/eve", printed).status_code == 200
    assert broker.logs_in("eve", token) == YES
    assert certificates.get(serial).revoked_at is None
    assert sessions_of("eve") == 0, "which have always ended with a new password"


def test_revoking_everything_is_audited_with_the_revoked_credentials(services: Services, alice: Caller) -> None:
    _, serial = create_all_credentials(services, alice)
    alice.patch("/api/users/eve", {"password": NEW, "revokeOthers": True})
    events = alice.get("/api/audit").get_json()["items"]
    found = {event["action"]: event for event in events}
    assert found["user.change"]["after"] == {"password": "changed", "revokedTokens": 1}
    assert found["certificate.revoke"]["target"] == f"certificate:{serial}"
    assert found["token.revoke"]["before"]["label"] == "wall"
    assert {found[action]["actor"] for action in ("user.change", "certificate.revoke", "token.revoke")} == {"alice"}


def test_tokens_and_certificates_of_others_stay(services: Services, alice: Caller, broker: Broker) -> None:
    token, serial = create_all_credentials(services, alice)
    create_all_credentials(services, alice, "mallory")
    alice.patch("/api/users/mallory", {"password": NEW, "revokeOthers": True})
    assert broker.logs_in("eve", token) == YES
    assert certificates.get(serial).revoked_at is None


def test_password_that_is_refused_revokes_nothing(services: Services, alice: Caller) -> None:
    create_all_credentials(services, alice)
    before = everything_stored()
    assert refused_fields(alice.patch("/api/users/eve", {"password": "x", "revokeOthers": True})) == ["password"]
    assert everything_stored() == before


@pytest.mark.parametrize("printed", [{"revokeOthers": True}, {"revokeOthers": True, "enabled": False}])
def test_revoking_needs_a_password_in_the_same_request(alice: Caller, printed: dict[str, object]) -> None:
    before = everything_stored()
    assert refused_fields(alice.patch("/api/users/bob", printed)) == ["revokeOthers"]
    assert everything_stored() == before


def test_new_user_has_nothing_to_revoke(alice: Caller) -> None:
    printed = {"username": "eve", "password": NEW, "revokeOthers": True}
    assert refused_fields(alice.post("/api/users", printed)) == ["revokeOthers"]


@pytest.mark.parametrize(("option", "kept"), [((), True), (("--keep-others",), True), (("--revoke-others",), False)])
def test_command_line_revokes_only_when_asked(
    services: Services, alice: Caller, console: Console, option: tuple[str, ...], kept: bool
) -> None:
    _, serial = create_all_credentials(services, alice)
    printed = stdout_of(console.command("users", "set-password", "eve", "--password-stdin", *option, stdin=NEW + "\n"))
    assert ("revoked" in printed) is not kept
    assert bool(api_tokens.list_tokens("eve", "", 1, 10).items) is kept
    assert (certificates.get(serial).revoked_at is None) is kept


def test_request_with_a_token_that_is_revoked_after_its_check_makes_no_token(
    services: Services, alice: Caller, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, _ = create_all_credentials(services, alice)
    alice.patch("/api/users/eve", {"permissions": [{"context": "http", "operation": "readWrite", "resource": "/#"}]})
    may_call = AccessControl.may_call

    def revoke_meanwhile(access: AccessControl, user: UserPolicy, method: str, path: str) -> Decision:
        if user.username == "eve":
            users.change(OPERATOR, "eve", {"password": NEW, "revoke_others": True}, HASHER)
        return may_call(access, user, method, path)

    monkeypatch.setattr(AccessControl, "may_call", revoke_meanwhile)
    answer = client.post("/api/tokens", json={}, headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.get_json()["code"]) == (401, "invalid-token")
    assert api_tokens.list_tokens("eve", "", 1, 10).total == 0


@pytest.mark.parametrize("path", ["/api/login", "/admin/sign-in", "/.well-known/est/simpleenroll"])
def test_sign_in_that_ends_after_a_password_change_is_refused(
    services: Services, alice: Caller, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    alice.creates_user("eve", BOBS_PASSWORD, grantTypes=["password", "certificate"])
    with_password = SignIns.with_password

    def replace_meanwhile(sign_ins: SignIns, *given: Any, **options: Any) -> SignIn:
        signed_in = with_password(sign_ins, *given, **options)
        users.change(OPERATOR, "eve", {"password": NEW, "revoke_others": True}, HASHER)
        return signed_in

    credentials = {"username": "eve", "password": BOBS_PASSWORD}
    monkeypatch.setattr(SignIns, "with_password", replace_meanwhile)
    if path == "/admin/sign-in":
        form = client.get(path).get_data(as_text=True)
        token = form.partition('name="csrf_token" value="')[2].partition('"')[0]
        answer = client.post(path, data={**credentials, "csrf_token": token})
    elif path == "/api/login":
        answer = client.post(path, json=credentials)
    else:
        request = b64encode(x509.load_pem_x509_csr(signing_request("eve").encode()).public_bytes(Encoding.DER))
        answer = client.post(path, data=request, auth=("eve", BOBS_PASSWORD))
    assert answer.status_code == 401
    assert sessions_of("eve") == api_tokens.list_tokens("eve", "", 1, 10).total == 0
    with session():
        assert Certificate.select().count() == 0
