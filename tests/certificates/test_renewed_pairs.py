"""A renewed pair of certificates: asked for again, side by side for the overlap, and what is left then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import users
from authsvc.pki import authorities
from tests.actors import OPERATOR
from tests.certificates.disconnects import broker_at, carry_out
from tests.certificates.environment import ON_SQLITE, Scene, orders, serial_of
from tests.certificates.proofs import DUE, count_of, in_, renewal, renewed, renews
from tests.certificates.tools import openssl, pem, written
from tests.registry.signing import new_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates.fake_broker import Gate


DAY = timedelta(days=1)

# Asked again.


def test_a_replay_gives_the_same_certificate_and_makes_no_second(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        body = renewal(current, key)
        first, again = renews(scene, body), renews(scene, body)
        assert again.get_json() == first.get_json()
        assert scene.shows(current)["revoked"] is not None
    assert count_of(scene) == 2


@ON_SQLITE
def test_an_answer_that_was_lost_is_given_again_later_in_the_overlap(scene: Scene) -> None:
    key, following = new_key(), new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        first = renewed(renews(scene, renewal(current, key, following)))
        ends = scene.shows(current)["revoked"]
    with in_(DUE + timedelta(hours=20)):
        assert renewed(renews(scene, renewal(current, key, following))) == first
        assert scene.shows(current)["revoked"] == ends
    assert count_of(scene) == 2


@ON_SQLITE
def test_an_answer_that_was_lost_is_given_again_after_the_overlap(scene: Scene) -> None:
    key, following = new_key(), new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        first = renewed(renews(scene, renewal(current, key, following)))
    with in_(DUE + timedelta(hours=25)):
        assert renewed(renews(scene, renewal(current, key, following))) == first


@ON_SQLITE
def test_who_renews_again_with_another_key_does_not_prolong_the_old_one(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        renews(scene, renewal(current, key))
        ends = scene.shows(current)["revoked"]
    with in_(DUE + timedelta(hours=20)):
        renews(scene, renewal(current, key))
        assert scene.shows(current)["revoked"] == ends


@ON_SQLITE
def test_the_current_key_itself_gives_the_current_certificate(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        assert renewed(renews(scene, renewal(current, key, key))) == current
        assert scene.shows(current)["revoked"] is None


# The overlap.


def test_both_are_good_for_the_overlap_and_then_only_the_new_one(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        following = renewed(renews(scene, renewal(current, key)))
        shown = scene.shows(current)
        assert (shown["status"], shown["reason"]) == ("valid", "superseded")
        ends = datetime.fromisoformat(shown["revoked"])
        assert ends - datetime.now(UTC) == pytest.approx(DAY, abs=timedelta(seconds=1))
        assert scene.listed() == {}
    with in_(DUE + timedelta(hours=23.9)):
        assert scene.listed() == {}
    assert orders() == []
    with in_(DUE + timedelta(hours=24.1)):
        assert scene.listed() == {serial_of(current): "superseded"}
        assert scene.shows(current)["status"] == "revoked"
        assert scene.shows(following)["status"] == "valid"
        assert scene.answers("bob") == "ok"
        assert orders() == []


@ON_SQLITE
def test_the_end_of_an_overlap_ends_sessions_once_if_no_other_certificate_is_valid(scene: Scene, gate: Gate) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        following = renewed(renews(scene, renewal(current, key)))
        scene.revokes(following, "keyCompromise")
        authorities.revocation_lists(scene.issuing)
    carry_out(broker_at(gate.port))
    with in_(DUE + timedelta(hours=24.1)):
        authorities.revocation_lists(scene.issuing)
        assert orders() == [("bob", "certificate revoked"), ("bob", "certificate superseded")]
        authorities.revocation_lists(scene.issuing)
        assert len(orders()) == 2


@ON_SQLITE
@pytest.mark.parametrize("hours", [0, 24])
def test_a_renewal_never_ends_sessions_while_the_next_certificate_is_valid(scene: Scene, hours: int) -> None:
    with_overlap = scene.under(renewal_overlap_hours=hours)
    key = new_key()
    current = with_overlap.certifies("bob", key)
    with in_(DUE):
        renewed(renews(with_overlap, renewal(current, key)))
    with in_(DUE + timedelta(hours=hours + 0.1)):
        authorities.revocation_lists(scene.issuing)
        assert scene.shows(current)["status"] == "revoked"
    with_overlap.close()
    assert orders() == []


@ON_SQLITE
def test_the_list_at_the_end_of_the_overlap_is_what_openssl_goes_by(scene: Scene, tmp_path: Path) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        following = renewed(renews(scene, renewal(current, key)))
    with in_(DUE + 2 * DAY):
        at = ("-attime", str(int(datetime.now(UTC).timestamp())))
        trusted, lists = written(tmp_path, "ca.pem", scene.ca_pem()), written(tmp_path, "crl.pem", scene.crl_pem())
    options = ("verify", *at, "-crl_check", "-CRLfile", lists, "-CAfile", trusted)
    assert "OK" in openssl(*options, stdin=pem(following))
    with pytest.raises(AssertionError, match="certificate revoked"):
        openssl(*options, stdin=pem(current))


@ON_SQLITE
@pytest.mark.parametrize(("hours", "ends_after"), [(0, timedelta()), (1, timedelta(hours=1)), (8760, None)])
def test_the_overlap_is_a_setting(scene: Scene, hours: int, ends_after: timedelta | None) -> None:
    strict = scene.under(renewal_overlap_hours=hours)
    key = new_key()
    current = strict.certifies("bob", key)
    with in_(DUE):
        assert renews(strict, renewal(current, key)).status_code == 201
        ends = strict.shows(current)["revoked"]
        # Beyond its own end there is nothing to revoke.
        expected = None if ends_after is None else (datetime.now(UTC) + ends_after).strftime("%Y-%m-%dT%H:%M:%SZ")
    strict.close()
    assert ends == expected


@ON_SQLITE
def test_who_is_in_an_overlap_can_still_be_revoked_at_once(scene: Scene) -> None:
    key = new_key()
    current = scene.certifies("bob", key)
    with in_(DUE):
        renews(scene, renewal(current, key))
        assert scene.revokes(current, "keyCompromise").status_code == 200
        assert scene.listed() == {serial_of(current): "keyCompromise"}
        users.delete(OPERATOR, "bob")
        assert sorted(scene.listed().values()) == ["cessationOfOperation", "keyCompromise"]
