"""CRLs: their entries, when they are signed, and their download."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import time_machine

from authsvc.accounts import users
from authsvc.pki import authorities
from authsvc.storage.database import session
from authsvc.storage.models import Authority
from tests.actors import OPERATOR
from tests.certificates.environment import ON_SQLITE, Environment, crls_in, entries_of, number_of, serial_of
from tests.certificates.tools import openssl, openssl_refuses, pem, write_file
from tests.registry.environment import in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography import x509

    from authsvc.pki.authorities import RevocationList

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ADDRESSES = ["/pki/ca.pem", "/pki/crl.pem", "/pki/crl.der"]


def age_crls(by: timedelta) -> None:
    """Move the times of all CRLs back."""
    with session():
        for row in Authority.select():
            row.crl_this_update -= by
            row.crl_next_update -= by
            row.save()


# Entries.


@ON_SQLITE
def test_first_crl_has_number_one_and_is_empty(env: Environment) -> None:
    env.issue_certificate("bob")
    revocations = env.crl()
    assert (number_of(revocations), entries_of(revocations)) == (1, {})
    assert revocations.next_update_utc is not None
    assert revocations.next_update_utc - revocations.last_update_utc == 7 * DAY + timedelta(minutes=5)


def test_next_crl_lists_a_revoked_certificate_with_its_reason(env: Environment) -> None:
    bobs, next_ones = env.issue_certificate("bob"), env.issue_certificate("bob")
    env.crl()
    env.revoke_certificate(bobs, "keyCompromise")
    assert (number_of(env.crl()), env.crl_entries()) == (2, {serial_of(bobs): "keyCompromise"})
    env.revoke_certificate(next_ones, "affiliationChanged")
    revocations = env.crl()
    assert number_of(revocations) == 3
    assert entries_of(revocations) == {serial_of(bobs): "keyCompromise", serial_of(next_ones): "affiliationChanged"}


@ON_SQLITE
def test_crl_entry_has_the_revocation_time(env: Environment) -> None:
    bobs = env.issue_certificate("bob")
    before = datetime.now(UTC).replace(microsecond=0)
    env.revoke_certificate(bobs)
    (entry,) = env.crl()
    assert before <= entry.revocation_date_utc <= datetime.now(UTC)


def test_certificate_of_a_disabled_user_is_on_hold(env: Environment) -> None:
    bobs = env.issue_certificate("bob")
    env.change_user(enabled=False)
    assert env.crl_entries() == {serial_of(bobs): "certificateHold"}
    env.change_user(enabled=True)
    assert env.crl_entries() == {}
    assert number_of(env.crl()) == 2, "one list with the hold and one without it, since nobody asked before"


def test_certificate_of_a_user_without_the_grant_type_is_on_hold(env: Environment) -> None:
    bobs = env.issue_certificate("bob")
    env.change_user(grant_types=frozenset({"password"}))
    assert env.crl_entries() == {serial_of(bobs): "certificateHold"}
    env.change_user(grant_types=frozenset({"certificate"}))
    assert env.crl_entries() == {}


@ON_SQLITE
def test_hold_does_not_affect_other_users(env: Environment) -> None:
    env.create_user("carol")
    env.issue_certificate("carol")
    bobs = env.issue_certificate("bob")
    env.change_user(enabled=False)
    assert env.crl_entries() == {serial_of(bobs): "certificateHold"}


@ON_SQLITE
def test_revoked_certificate_stays_revoked_after_a_hold(env: Environment) -> None:
    lost, kept = env.issue_certificate("bob"), env.issue_certificate("bob")
    env.revoke_certificate(lost, "keyCompromise")
    env.change_user(enabled=False)
    assert env.crl_entries() == {serial_of(lost): "keyCompromise", serial_of(kept): "certificateHold"}
    env.change_user(enabled=True)
    assert env.crl_entries() == {serial_of(lost): "keyCompromise"}


def test_certificates_of_a_deleted_user_are_revoked(env: Environment) -> None:
    lost, kept = env.issue_certificate("bob"), env.issue_certificate("bob")
    env.revoke_certificate(lost, "keyCompromise")
    users.delete(OPERATOR, "bob")
    expected = {serial_of(lost): "keyCompromise", serial_of(kept): "cessationOfOperation"}
    assert env.crl_entries() == expected
    env.create_user("bob")
    assert env.crl_entries() == expected, "another Bob does not bring the first one's certificates back"


@ON_SQLITE
def test_certificates_of_a_deleted_disabled_user_are_revoked(env: Environment) -> None:
    bobs = env.issue_certificate("bob")
    env.change_user(enabled=False)
    assert env.crl_entries() == {serial_of(bobs): "certificateHold"}
    users.delete(OPERATOR, "bob")
    assert env.crl_entries() == {serial_of(bobs): "cessationOfOperation"}


@ON_SQLITE
def test_crl_omits_expired_certificates(env: Environment) -> None:
    env.revoke_certificate(env.issue_certificate("bob", days=10))
    assert len(env.crl_entries()) == 1
    with time_machine.travel(datetime.now(UTC) + 11 * DAY, tick=False):
        assert env.crl_entries() == {}


@ON_SQLITE
def test_openssl_refuses_a_certificate_on_the_crl(env: Environment, tmp_path: Path) -> None:
    bobs = env.issue_certificate("bob")
    assert "stdin: OK" in _checked(env, tmp_path, bobs, openssl)
    env.change_user(enabled=False)
    assert "certificate revoked" in _checked(env, tmp_path, bobs, openssl_refuses)
    env.change_user(enabled=True)
    assert "stdin: OK" in _checked(env, tmp_path, bobs, openssl)


def _checked(env: Environment, directory: Path, certificate: x509.Certificate, run: Callable[..., str]) -> str:
    trusted, lists = write_file(directory, "ca.pem", env.ca_pem()), write_file(directory, "crl.pem", env.crl_pem())
    command = ("verify", "-crl_check", "-CRLfile", lists, "-CAfile", trusted)
    return run(*command, stdin=pem(certificate))


# Signing.


@ON_SQLITE
def test_crl_is_unchanged_while_its_entries_are_the_same(env: Environment) -> None:
    env.revoke_certificate(env.issue_certificate("bob"))
    before = env.crl_pem()
    env.create_user("carol")
    env.issue_certificate("carol")
    env.change_user("carol", password="carol's next secret")
    assert env.crl_pem() == before


def test_crl_is_signed_again_after_half_of_its_validity(env: Environment) -> None:
    assert number_of(env.crl()) == 1
    age_crls(3.5 * DAY - HOUR)
    assert number_of(env.crl()) == 1
    age_crls(2 * HOUR)
    revocations = env.crl()
    assert number_of(revocations) == 2
    assert revocations.next_update_utc is not None
    assert revocations.next_update_utc > datetime.now(UTC) + 6.9 * DAY


@ON_SQLITE
def test_background_job_signs_a_due_crl(env: Environment) -> None:
    env.crl()
    age_crls(4 * DAY)
    authorities.revocation_lists(env.signing_policy)
    (only,) = authorities.records()
    assert only.crl_number == 2
    assert only.crl_next_update is not None
    assert only.crl_next_update > datetime.now(UTC) + 6 * DAY


@ON_SQLITE
@pytest.mark.parametrize("slept", [DAY, 8 * DAY, 300 * DAY], ids=str)
def test_published_crl_is_never_expired(env: Environment, slept: timedelta) -> None:
    env.crl()
    with time_machine.travel(datetime.now(UTC) + slept, tick=False):
        for revocations in crls_in(env.crl_pem()):
            assert revocations.next_update_utc is not None
            assert revocations.next_update_utc - datetime.now(UTC) >= 3.5 * DAY
            assert revocations.last_update_utc < datetime.now(UTC)


@ON_SQLITE
def test_validity_of_crls_is_configurable(env: Environment) -> None:
    hasty = env.with_settings(crl_days=1)
    revocations = hasty.crl()
    hasty.close()
    assert revocations.next_update_utc is not None
    assert revocations.next_update_utc - revocations.last_update_utc == DAY + timedelta(minutes=5)


def test_only_one_of_many_workers_signs_a_due_crl(env: Environment) -> None:
    bobs = env.issue_certificate("bob")
    assert number_of(env.crl()) == 1
    env.revoke_certificate(bobs)

    def ask(_: int) -> list[RevocationList]:
        return authorities.revocation_lists(env.signing_policy)

    seen = in_parallel(6, ask)
    assert {each[0].number for each in seen} == {2}
    assert len({each[0].pem for each in seen}) == 1


# Downloads.


@ON_SQLITE
def test_pem_and_der_are_the_same_crl(env: Environment) -> None:
    env.revoke_certificate(env.issue_certificate("bob"))
    (as_pem,) = crls_in(env.crl_pem())
    assert as_pem == env.crl()


@ON_SQLITE
@pytest.mark.parametrize("address", ADDRESSES)
def test_client_with_the_latest_crl_gets_304(env: Environment, address: str) -> None:
    first = env.unauthenticated.get(address)
    again = env.unauthenticated.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.data) == (200, 304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert first.headers["Cache-Control"] == "no-cache"


@ON_SQLITE
@pytest.mark.parametrize("address", ADDRESSES[1:])
def test_client_with_an_older_crl_gets_the_latest(env: Environment, address: str) -> None:
    bobs = env.issue_certificate("bob")
    first = env.unauthenticated.get(address)
    env.revoke_certificate(bobs)
    again = env.unauthenticated.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 200
    assert again.headers["ETag"] != first.headers["ETag"]


@ON_SQLITE
def test_each_format_has_its_media_type(env: Environment) -> None:
    types = [env.unauthenticated.get(address).content_type for address in ADDRESSES]
    assert types == ["application/x-pem-file", "application/x-pem-file", "application/pkix-crl"]
