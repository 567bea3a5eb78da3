"""The authorities of a running service: one that signs, made here or brought along, and what happens when it
changes."""

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
from tests.certificates.environment import ON_SQLITE, Scene, entries_of, lists_in, serial_of
from tests.certificates.imported import brings, root, subjects_of, verified
from tests.certificates.tools import key_pem, openssl_refuses, pem
from tests.storage.environment import events

if TYPE_CHECKING:
    from pathlib import Path

    from authsvc.settings import Settings

DAY = timedelta(days=1)


def rotates(overlap: timedelta = DAY) -> None:
    authorities.rotate(OPERATOR, None, overlap)


# The one of the first start.


def test_the_first_start_makes_an_authority_for_ten_years(scene: Scene) -> None:
    (only,) = authorities.records()
    assert only.subject == "CN=authsvc certificate authority"
    assert only.not_after - only.created_at > 3649 * DAY
    assert only.retires_at is None


@ON_SQLITE
def test_later_starts_find_it_again(scene: Scene) -> None:
    before = scene.ca_pem()
    bootstrap.prepare(scene.services.settings)
    with policy_change():
        authorities.ensure(SERVICE, None)
    assert scene.ca_pem() == before


@ON_SQLITE
def test_a_passphrase_encrypts_its_key_where_it_is_stored(settings: Settings) -> None:
    careful = replace(settings, ca_key_passphrase="the authority's own secret")
    bootstrap.prepare(careful)
    with session():
        assert Authority.get().key.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    scene = Scene.opened(careful)
    scene.moves_in("bob")
    assert scene.certifies("bob").subject.rfc4514_string() == "CN=bob"
    assert scene.crl().issuer.rfc4514_string() == "CN=authsvc certificate authority"
    scene.close()


@ON_SQLITE
def test_a_passphrase_that_is_set_later_encrypts_the_stored_key(settings: Settings) -> None:
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
def test_a_wrong_passphrase_stops_the_start_with_one_clear_line(settings: Settings) -> None:
    bootstrap.prepare(replace(settings, ca_key_passphrase="right"))
    with pytest.raises(AuthsvcError, match="AUTHSVC_CA_KEY_PASSPHRASE"):
        bootstrap.prepare(replace(settings, ca_key_passphrase="wrong"))


@ON_SQLITE
def test_an_authority_that_has_run_out_signs_nothing_and_says_so(scene: Scene) -> None:
    certificate, key = root(valid=(-DAY, 2 * DAY))
    brings(pem(certificate), key_pem(key))
    with time_machine.travel(datetime.now(UTC) + 3 * DAY, tick=False):
        answer = scene.asks()
    assert answer.status_code == 409, answer.text


# A change of authorities.


def test_after_a_rotation_both_are_trusted_and_both_sign_their_lists(scene: Scene, tmp_path: Path) -> None:
    earlier = scene.certifies("bob")
    rotates()
    later = scene.certifies("bob")
    assert len(subjects_of(scene)) == 2
    assert earlier.issuer != later.issuer
    for certificate in (earlier, later):
        assert "stdin: OK" in verified(scene, tmp_path, certificate)
    newest, oldest = lists_in(scene.crl_pem())
    assert (newest.issuer, oldest.issuer) == (later.issuer, earlier.issuer)
    assert scene.crl() == newest


def test_each_list_names_what_its_own_authority_signed(scene: Scene, tmp_path: Path) -> None:
    earlier = scene.certifies("bob")
    rotates()
    later = scene.certifies("bob")
    assert scene.revokes(earlier, "superseded").status_code == 200
    newest, oldest = lists_in(scene.crl_pem())
    assert entries_of(oldest) == {serial_of(earlier): "superseded"}
    assert entries_of(newest) == {}
    assert "stdin: OK" in verified(scene, tmp_path, later)
    trusted, lists = tmp_path / "ca.pem", tmp_path / "crl.pem"
    options = ("-crl_check", "-CRLfile", lists, "-CAfile", trusted)
    assert "certificate revoked" in openssl_refuses("verify", *options, stdin=pem(earlier))


def test_the_retired_one_disappears_when_the_overlap_is_over(scene: Scene) -> None:
    rotates(overlap=30 * DAY)
    with time_machine.travel(datetime.now(UTC) + 29 * DAY, tick=False):
        assert (len(subjects_of(scene)), len(lists_in(scene.crl_pem()))) == (2, 2)
    with time_machine.travel(datetime.now(UTC) + 31 * DAY, tick=False):
        (only,) = subjects_of(scene)
        assert only.startswith("CN=authsvc certificate authority 20")
        assert len(lists_in(scene.crl_pem())) == 1


@ON_SQLITE
def test_without_an_overlap_it_disappears_at_once(scene: Scene) -> None:
    rotates(overlap=timedelta())
    assert (len(subjects_of(scene)), len(lists_in(scene.crl_pem()))) == (1, 1)


@ON_SQLITE
def test_a_certificate_of_an_authority_that_nobody_trusts_any_more_is_none(scene: Scene) -> None:
    scene.certifies("bob")
    assert scene.answers("bob") == "ok"
    rotates(overlap=timedelta())
    assert scene.answers("bob") == "no-valid-certificate"


@ON_SQLITE
def test_a_third_does_not_move_the_time_at_which_the_first_retires(scene: Scene) -> None:
    rotates(overlap=10 * DAY)
    _, first = authorities.records()
    rotates(overlap=300 * DAY)
    newest, second, still_first = authorities.records()
    assert (newest.retires_at, still_first.retires_at) == (None, first.retires_at)
    assert second.retires_at is not None
    assert len({newest.subject, second.subject, still_first.subject}) >= 2


@ON_SQLITE
def test_the_audit_trail_knows_who_changed_authorities(scene: Scene) -> None:
    rotates()
    certificate, key = root()
    brings(pem(certificate), key_pem(key))
    told = [(each.action, each.actor) for each in events() if each.action.startswith("authority.")]
    assert told == [("authority.create", "authsvc"), ("authority.rotate", "root"), ("authority.import", "root")]
