"""Revocation lists: what they name and hold, when they are signed anew and by whom, and what it costs to ask
for them."""

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
from tests.certificates.environment import ON_SQLITE, Scene, entries_of, lists_in, number_of, serial_of
from tests.certificates.tools import openssl, openssl_refuses, pem, written
from tests.registry.environment import in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography import x509

    from authsvc.pki.authorities import RevocationList

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ADDRESSES = ["/pki/ca.pem", "/pki/crl.pem", "/pki/crl.der"]


def lists_move_back(by: timedelta) -> None:
    """Let every list have been signed so much earlier."""
    with session():
        for row in Authority.select():
            row.crl_this_update -= by
            row.crl_next_update -= by
            row.save()


# What it names.


@ON_SQLITE
def test_the_first_list_is_number_one_and_empty(scene: Scene) -> None:
    scene.certifies("bob")
    revocations = scene.crl()
    assert (number_of(revocations), entries_of(revocations)) == (1, {})
    assert revocations.next_update_utc is not None
    assert revocations.next_update_utc - revocations.last_update_utc == 7 * DAY + timedelta(minutes=5)


def test_a_revoked_certificate_is_on_the_next_list_for_its_reason_and_with_the_next_number(scene: Scene) -> None:
    bobs, next_ones = scene.certifies("bob"), scene.certifies("bob")
    scene.crl()
    scene.revokes(bobs, "keyCompromise")
    assert (number_of(scene.crl()), scene.listed()) == (2, {serial_of(bobs): "keyCompromise"})
    scene.revokes(next_ones, "affiliationChanged")
    revocations = scene.crl()
    assert number_of(revocations) == 3
    assert entries_of(revocations) == {serial_of(bobs): "keyCompromise", serial_of(next_ones): "affiliationChanged"}


@ON_SQLITE
def test_it_says_when_a_certificate_was_revoked(scene: Scene) -> None:
    bobs = scene.certifies("bob")
    before = datetime.now(UTC).replace(microsecond=0)
    scene.revokes(bobs)
    (entry,) = scene.crl()
    assert before <= entry.revocation_date_utc <= datetime.now(UTC)


def test_who_is_disabled_is_on_hold_until_enabled_again(scene: Scene) -> None:
    bobs = scene.certifies("bob")
    scene.changes(enabled=False)
    assert scene.listed() == {serial_of(bobs): "certificateHold"}
    scene.changes(enabled=True)
    assert scene.listed() == {}
    assert number_of(scene.crl()) == 2, "one list with the hold and one without it, since nobody asked before"


def test_who_loses_the_grant_type_is_on_hold_until_it_is_given_back(scene: Scene) -> None:
    bobs = scene.certifies("bob")
    scene.changes(grant_types=frozenset({"password"}))
    assert scene.listed() == {serial_of(bobs): "certificateHold"}
    scene.changes(grant_types=frozenset({"certificate"}))
    assert scene.listed() == {}


@ON_SQLITE
def test_a_hold_concerns_nobody_else(scene: Scene) -> None:
    scene.moves_in("carol")
    scene.certifies("carol")
    bobs = scene.certifies("bob")
    scene.changes(enabled=False)
    assert scene.listed() == {serial_of(bobs): "certificateHold"}


@ON_SQLITE
def test_what_was_revoked_stays_so_whatever_becomes_of_a_hold(scene: Scene) -> None:
    lost, kept = scene.certifies("bob"), scene.certifies("bob")
    scene.revokes(lost, "keyCompromise")
    scene.changes(enabled=False)
    assert scene.listed() == {serial_of(lost): "keyCompromise", serial_of(kept): "certificateHold"}
    scene.changes(enabled=True)
    assert scene.listed() == {serial_of(lost): "keyCompromise"}


def test_of_a_user_who_is_removed_every_certificate_ends_for_good(scene: Scene) -> None:
    lost, kept = scene.certifies("bob"), scene.certifies("bob")
    scene.revokes(lost, "keyCompromise")
    users.delete(OPERATOR, "bob")
    expected = {serial_of(lost): "keyCompromise", serial_of(kept): "cessationOfOperation"}
    assert scene.listed() == expected
    scene.moves_in("bob")
    assert scene.listed() == expected, "another Bob does not bring the first one's certificates back"


@ON_SQLITE
def test_who_is_removed_while_disabled_ends_for_good_too(scene: Scene) -> None:
    bobs = scene.certifies("bob")
    scene.changes(enabled=False)
    assert scene.listed() == {serial_of(bobs): "certificateHold"}
    users.delete(OPERATOR, "bob")
    assert scene.listed() == {serial_of(bobs): "cessationOfOperation"}


@ON_SQLITE
def test_a_certificate_that_ran_out_needs_no_line_any_more(scene: Scene) -> None:
    scene.revokes(scene.certifies("bob", days=10))
    assert len(scene.listed()) == 1
    with time_machine.travel(datetime.now(UTC) + 11 * DAY, tick=False):
        assert scene.listed() == {}


@ON_SQLITE
def test_openssl_refuses_whom_it_names(scene: Scene, tmp_path: Path) -> None:
    bobs = scene.certifies("bob")
    assert "stdin: OK" in _checked(scene, tmp_path, bobs, openssl)
    scene.changes(enabled=False)
    assert "certificate revoked" in _checked(scene, tmp_path, bobs, openssl_refuses)
    scene.changes(enabled=True)
    assert "stdin: OK" in _checked(scene, tmp_path, bobs, openssl)


def _checked(scene: Scene, directory: Path, certificate: x509.Certificate, run: Callable[..., str]) -> str:
    trusted, lists = written(directory, "ca.pem", scene.ca_pem()), written(directory, "crl.pem", scene.crl_pem())
    command = ("verify", "-crl_check", "-CRLfile", lists, "-CAfile", trusted)
    return run(*command, stdin=pem(certificate))


# When it is signed anew.


@ON_SQLITE
def test_a_list_stays_byte_by_byte_the_same_while_nothing_it_names_changes(scene: Scene) -> None:
    scene.revokes(scene.certifies("bob"))
    before = scene.crl_pem()
    scene.moves_in("carol")
    scene.certifies("carol")
    scene.changes("carol", password="carol's next secret")
    assert scene.crl_pem() == before


def test_it_is_signed_anew_at_half_of_its_life_and_not_before(scene: Scene) -> None:
    assert number_of(scene.crl()) == 1
    lists_move_back(3.5 * DAY - HOUR)
    assert number_of(scene.crl()) == 1
    lists_move_back(2 * HOUR)
    revocations = scene.crl()
    assert number_of(revocations) == 2
    assert revocations.next_update_utc is not None
    assert revocations.next_update_utc > datetime.now(UTC) + 6.9 * DAY


@ON_SQLITE
def test_the_background_does_so_while_nobody_asks(scene: Scene) -> None:
    scene.crl()
    lists_move_back(4 * DAY)
    authorities.refresh_if_due(scene.issuing)
    (only,) = authorities.records()
    assert only.crl_number == 2
    assert only.crl_next_update is not None
    assert only.crl_next_update > datetime.now(UTC) + 6 * DAY


@ON_SQLITE
@pytest.mark.parametrize("slept", [DAY, 8 * DAY, 300 * DAY], ids=str)
def test_what_is_handed_out_has_never_run_out(scene: Scene, slept: timedelta) -> None:
    scene.crl()
    with time_machine.travel(datetime.now(UTC) + slept, tick=False):
        for revocations in lists_in(scene.crl_pem()):
            assert revocations.next_update_utc is not None
            assert revocations.next_update_utc - datetime.now(UTC) >= 3.5 * DAY
            assert revocations.last_update_utc < datetime.now(UTC)


@ON_SQLITE
def test_its_life_is_a_setting(scene: Scene) -> None:
    hasty = scene.under(crl_days=1)
    revocations = hasty.crl()
    hasty.close()
    assert revocations.next_update_utc is not None
    assert revocations.next_update_utc - revocations.last_update_utc == DAY + timedelta(minutes=5)


def test_of_many_that_notice_at_once_one_signs(scene: Scene) -> None:
    bobs = scene.certifies("bob")
    assert number_of(scene.crl()) == 1
    scene.revokes(bobs)

    def ask(_: int) -> list[RevocationList]:
        return authorities.revocation_lists(scene.issuing)

    seen = in_parallel(6, ask)
    assert {each[0].number for each in seen} == {2}
    assert len({each[0].pem for each in seen}) == 1


# What asking costs.


@ON_SQLITE
def test_both_forms_are_the_same_list(scene: Scene) -> None:
    scene.revokes(scene.certifies("bob"))
    (as_pem,) = lists_in(scene.crl_pem())
    assert as_pem == scene.crl()


@ON_SQLITE
@pytest.mark.parametrize("address", ADDRESSES)
def test_who_has_the_latest_is_told_so_in_no_bytes(scene: Scene, address: str) -> None:
    first = scene.stranger.get(address)
    again = scene.stranger.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.data) == (200, 304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert first.headers["Cache-Control"] == "no-cache"


@ON_SQLITE
@pytest.mark.parametrize("address", ADDRESSES[1:])
def test_who_has_an_older_one_is_given_the_latest(scene: Scene, address: str) -> None:
    bobs = scene.certifies("bob")
    first = scene.stranger.get(address)
    scene.revokes(bobs)
    again = scene.stranger.get(address, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 200
    assert again.headers["ETag"] != first.headers["ETag"]


@ON_SQLITE
def test_each_form_says_what_it_is(scene: Scene) -> None:
    types = [scene.stranger.get(address).content_type for address in ADDRESSES]
    assert types == ["application/x-pem-file", "application/x-pem-file", "application/pkix-crl"]
