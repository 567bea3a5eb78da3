"""The authorities of a running service: first start, passphrase, rotation and overlap."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import time_machine

from authsvc.accounts import bootstrap
from authsvc.errors import AuthsvcError
from authsvc.pki import authorities
from authsvc.policy.actors import SERVICE
from authsvc.storage.changes import policy_change
from authsvc.storage.database import session
from authsvc.storage.models import Authority
from tests.actors import OPERATOR
from tests.certificates.environment import ON_SQLITE, Environment, crls_in, entries_of, serial_of
from tests.certificates.imported import imports, root, subjects_of, verified
from tests.certificates.tools import key_pem, openssl_refuses, pem
from tests.storage.environment import events

if TYPE_CHECKING:
    from pathlib import Path

    from authsvc.settings import Settings

DAY = timedelta(days=1)


def rotates(overlap: timedelta = DAY) -> None:
    authorities.rotate(OPERATOR, None, overlap)


# The one of the first start.


def test_first_start_creates_an_authority_for_ten_years(env: Environment) -> None:
    (only,) = authorities.records()
    assert only.subject == "CN=authsvc certificate authority"
    assert only.not_after - only.created_at > 3649 * DAY
    assert only.retires_at is None


@ON_SQLITE
def test_later_starts_keep_the_authority(env: Environment) -> None:
    before = env.ca_pem()
    bootstrap.prepare(env.services.settings)
    with policy_change():
        authorities.ensure(SERVICE, None)
    assert env.ca_pem() == before


@ON_SQLITE
def test_passphrase_encrypts_the_stored_key(settings: Settings) -> None:
    careful = replace(settings, ca_key_passphrase="the authority's own secret")
    bootstrap.prepare(careful)
    with session():
        assert Authority.get().key.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    env = Environment.opened(careful)
    env.create_user("bob")
    assert env.issue_certificate("bob").subject.rfc4514_string() == "CN=bob"
    assert env.crl().issuer.rfc4514_string() == "CN=authsvc certificate authority"
    env.close()


@ON_SQLITE
def test_passphrase_set_later_encrypts_the_stored_key(settings: Settings) -> None:
    bootstrap.prepare(settings)
    with session():
        plain = Authority.get()
    assert plain.key.startswith("-----BEGIN PRIVATE KEY-----")
    bootstrap.prepare(replace(settings, ca_key_passphrase="set later"))
    with session():
        stored = Authority.get()
    assert stored.key.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stored.certificate == plain.certificate
    with pytest.raises(AuthsvcError, match="AUTHSVC_CA_KEY_PASSPHRASE"):
        bootstrap.prepare(settings)


@ON_SQLITE
def test_wrong_passphrase_stops_the_start_with_one_line(settings: Settings) -> None:
    bootstrap.prepare(replace(settings, ca_key_passphrase="right"))
    with pytest.raises(AuthsvcError, match="AUTHSVC_CA_KEY_PASSPHRASE"):
        bootstrap.prepare(replace(settings, ca_key_passphrase="wrong"))


@ON_SQLITE
def test_expired_authority_does_not_sign(env: Environment) -> None:
    certificate, key = root(valid=(-DAY, 2 * DAY))
    imports(pem(certificate), key_pem(key))
    with time_machine.travel(datetime.now(UTC) + 3 * DAY, tick=False):
        answer = env.request_certificate()
    assert answer.status_code == 409, answer.text


# A change of authorities.


def test_after_a_rotation_both_authorities_are_trusted_and_sign_crls(env: Environment, tmp_path: Path) -> None:
    earlier = env.issue_certificate("bob")
    rotates()
    later = env.issue_certificate("bob")
    assert len(subjects_of(env)) == 2
    assert earlier.issuer != later.issuer
    for certificate in (earlier, later):
        assert "stdin: OK" in verified(env, tmp_path, certificate)
    newest, oldest = crls_in(env.crl_pem())
    assert (newest.issuer, oldest.issuer) == (later.issuer, earlier.issuer)
    assert env.crl() == newest


def test_crl_lists_only_certificates_of_its_authority(env: Environment, tmp_path: Path) -> None:
    earlier = env.issue_certificate("bob")
    rotates()
    later = env.issue_certificate("bob")
    assert env.revoke_certificate(earlier, "superseded").status_code == 200
    newest, oldest = crls_in(env.crl_pem())
    assert entries_of(oldest) == {serial_of(earlier): "superseded"}
    assert entries_of(newest) == {}
    assert "stdin: OK" in verified(env, tmp_path, later)
    trusted, lists = tmp_path / "ca.pem", tmp_path / "crl.pem"
    options = ("-crl_check", "-CRLfile", lists, "-CAfile", trusted)
    assert "certificate revoked" in openssl_refuses("verify", *options, stdin=pem(earlier))


def test_retired_authority_is_dropped_after_the_overlap(env: Environment) -> None:
    rotates(overlap=30 * DAY)
    with time_machine.travel(datetime.now(UTC) + 29 * DAY, tick=False):
        assert (len(subjects_of(env)), len(crls_in(env.crl_pem()))) == (2, 2)
    with time_machine.travel(datetime.now(UTC) + 31 * DAY, tick=False):
        (only,) = subjects_of(env)
        assert only.startswith("CN=authsvc certificate authority 20")
        assert len(crls_in(env.crl_pem())) == 1


@ON_SQLITE
def test_authority_without_overlap_is_dropped_at_once(env: Environment) -> None:
    rotates(overlap=timedelta())
    assert (len(subjects_of(env)), len(crls_in(env.crl_pem()))) == (1, 1)


@ON_SQLITE
def test_certificate_of_a_dropped_authority_is_not_valid(env: Environment) -> None:
    env.issue_certificate("bob")
    assert env.acl_answer("bob") == "ok"
    rotates(overlap=timedelta())
    assert env.acl_answer("bob") == "no-valid-certificate"


@ON_SQLITE
def test_third_authority_does_not_change_the_retirement_of_the_first(env: Environment) -> None:
    rotates(overlap=10 * DAY)
    _, first = authorities.records()
    rotates(overlap=300 * DAY)
    newest, second, still_first = authorities.records()
    assert (newest.retires_at, still_first.retires_at) == (None, first.retires_at)
    assert second.retires_at is not None
    assert len({newest.subject, second.subject, still_first.subject}) >= 2


@ON_SQLITE
def test_rotation_writes_an_audit_event(env: Environment) -> None:
    rotates()
    certificate, key = root()
    imports(pem(certificate), key_pem(key))
    recorded = [(each.action, each.actor) for each in events() if each.action.startswith("authority.")]
    assert recorded == [("authority.create", "authsvc"), ("authority.rotate", "root"), ("authority.import", "root")]
