"""A renewed pair of certificates: repeated requests, the overlap and its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from authsvc.accounts import users
from authsvc.pki import authorities
from tests.actors import OPERATOR
from tests.certificates.disconnects import run_due_orders, takeover_at
from tests.certificates.environment import ON_SQLITE, Environment, orders, serial_of
from tests.certificates.proofs import DUE, count_certificates, post_renewal, renewal, renewed_certificate, travel
from tests.certificates.tools import openssl, pem, write_file
from tests.registry.signing import new_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates.fake_broker import FakeBroker


DAY = timedelta(days=1)

# Repeated requests.


def test_replay_returns_the_same_certificate(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        body = renewal(current, key)
        first, again = post_renewal(env, body), post_renewal(env, body)
        assert again.get_json() == first.get_json()
        assert env.show_certificate(current)["revokedAt"] is not None
    assert count_certificates(env) == 2


@ON_SQLITE
def test_lost_response_can_be_fetched_again_during_the_overlap(env: Environment) -> None:
    key, following = new_key(), new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        first = renewed_certificate(post_renewal(env, renewal(current, key, following)))
        ends = env.show_certificate(current)["revokedAt"]
    with travel(DUE + timedelta(hours=20)):
        assert renewed_certificate(post_renewal(env, renewal(current, key, following))) == first
        assert env.show_certificate(current)["revokedAt"] == ends
    assert count_certificates(env) == 2


@ON_SQLITE
def test_lost_response_can_be_fetched_again_after_the_overlap(env: Environment) -> None:
    key, following = new_key(), new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        first = renewed_certificate(post_renewal(env, renewal(current, key, following)))
    with travel(DUE + timedelta(hours=25)):
        assert renewed_certificate(post_renewal(env, renewal(current, key, following))) == first


@ON_SQLITE
def test_second_renewal_does_not_prolong_the_old_certificate(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        post_renewal(env, renewal(current, key))
        ends = env.show_certificate(current)["revokedAt"]
    with travel(DUE + timedelta(hours=20)):
        post_renewal(env, renewal(current, key))
        assert env.show_certificate(current)["revokedAt"] == ends


@ON_SQLITE
def test_renewal_for_the_current_key_returns_the_current_certificate(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        assert renewed_certificate(post_renewal(env, renewal(current, key, key))) == current
        assert env.show_certificate(current)["revokedAt"] is None


# The overlap.


def test_both_certificates_are_valid_during_the_overlap(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        following = renewed_certificate(post_renewal(env, renewal(current, key)))
        shown = env.show_certificate(current)
        assert (shown["status"], shown["reason"]) == ("valid", "superseded")
        ends = datetime.fromisoformat(shown["revokedAt"])
        assert ends - datetime.now(UTC) == pytest.approx(DAY, abs=timedelta(seconds=1))
        assert env.crl_entries() == {}
    with travel(DUE + timedelta(hours=23.9)):
        assert env.crl_entries() == {}
    assert orders() == []
    with travel(DUE + timedelta(hours=24.1)):
        assert env.crl_entries() == {serial_of(current): "superseded"}
        assert env.show_certificate(current)["status"] == "revoked"
        assert env.show_certificate(following)["status"] == "valid"
        assert env.acl_answer("bob") == "ok"
        assert orders() == []


@ON_SQLITE
def test_end_of_an_overlap_disconnects_once_if_no_certificate_is_valid(
    env: Environment, fake_broker: FakeBroker
) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        following = renewed_certificate(post_renewal(env, renewal(current, key)))
        env.revoke_certificate(following, "keyCompromise")
        authorities.revocation_lists(env.signing_policy)
    run_due_orders(takeover_at(fake_broker.port))
    with travel(DUE + timedelta(hours=24.1)):
        authorities.revocation_lists(env.signing_policy)
        assert orders() == [("bob", "certificate revoked"), ("bob", "certificate superseded")]
        authorities.revocation_lists(env.signing_policy)
        assert len(orders()) == 2


@ON_SQLITE
@pytest.mark.parametrize("hours", [0, 24])
def test_renewal_does_not_disconnect_while_the_next_certificate_is_valid(env: Environment, hours: int) -> None:
    with_overlap = env.with_settings(renewal_overlap_hours=hours)
    key = new_key()
    current = with_overlap.issue_certificate("bob", key)
    with travel(DUE):
        renewed_certificate(post_renewal(with_overlap, renewal(current, key)))
    with travel(DUE + timedelta(hours=hours + 0.1)):
        authorities.revocation_lists(env.signing_policy)
        assert env.show_certificate(current)["status"] == "revoked"
    with_overlap.close()
    assert orders() == []


@ON_SQLITE
def test_openssl_refuses_the_old_certificate_after_the_overlap(env: Environment, tmp_path: Path) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        following = renewed_certificate(post_renewal(env, renewal(current, key)))
    with travel(DUE + 2 * DAY):
        at = ("-attime", str(int(datetime.now(UTC).timestamp())))
        trusted, lists = write_file(tmp_path, "ca.pem", env.ca_pem()), write_file(tmp_path, "crl.pem", env.crl_pem())
    options = ("verify", *at, "-crl_check", "-CRLfile", lists, "-CAfile", trusted)
    assert "OK" in openssl(*options, stdin=pem(following))
    with pytest.raises(AssertionError, match="certificate revoked"):
        openssl(*options, stdin=pem(current))


@ON_SQLITE
@pytest.mark.parametrize(("hours", "ends_after"), [(0, timedelta()), (1, timedelta(hours=1)), (8760, None)])
def test_overlap_is_configurable(env: Environment, hours: int, ends_after: timedelta | None) -> None:
    strict = env.with_settings(renewal_overlap_hours=hours)
    key = new_key()
    current = strict.issue_certificate("bob", key)
    with travel(DUE):
        assert post_renewal(strict, renewal(current, key)).status_code == 201
        ends = strict.show_certificate(current)["revokedAt"]
        # Beyond its own end there is nothing to revoke.
        expected = None if ends_after is None else (datetime.now(UTC) + ends_after).strftime("%Y-%m-%dT%H:%M:%SZ")
    strict.close()
    assert ends == expected


@ON_SQLITE
def test_certificate_in_an_overlap_can_be_revoked_at_once(env: Environment) -> None:
    key = new_key()
    current = env.issue_certificate("bob", key)
    with travel(DUE):
        post_renewal(env, renewal(current, key))
        assert env.revoke_certificate(current, "keyCompromise").status_code == 200
        assert env.crl_entries() == {serial_of(current): "keyCompromise"}
        users.delete(OPERATOR, "bob")
        assert sorted(env.crl_entries().values()) == ["cessationOfOperation", "keyCompromise"]
