"""The authorities of a running service: one that signs, made here or brought along, and what happens when it changes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import time_machine
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authsvc import authorities, first_start
from authsvc.actors import SERVICE
from authsvc.errors import AuthsvcError, InvalidInput
from authsvc.storage.changes import policy_change
from authsvc.storage.database import session
from authsvc.storage.models import Authority
from tests.certificates.scene import ON_SQLITE, Scene, entries_of, lists_in, serial_of
from tests.certificates.tools import certificate_for, key_pem, openssl, openssl_refuses, pem, written
from tests.people import OPERATOR
from tests.storage.scene import events

if TYPE_CHECKING:
    from pathlib import Path

    from authsvc.settings import Settings

KEY_USAGE = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
SIGNS_NOTHING = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
IS_AUTHORITY = x509.BasicConstraints(ca=True, path_length=None)
DAY = timedelta(days=1)


def subjects_of(scene: Scene) -> list[str]:
    found = x509.load_pem_x509_certificates(scene.ca_pem().encode())
    return [certificate.subject.rfc4514_string() for certificate in found]


def root(name: str = "our root", *extensions: x509.ExtensionType, key: Any = None, **options: Any) -> tuple[Any, Any]:
    """Return certificate and key of an authority that the operator has already."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    return certificate_for(name, key, None, *(extensions or (IS_AUTHORITY, KEY_USAGE)), **options), key


def below(issuer: tuple[Any, Any], name: str = "our intermediate") -> tuple[Any, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    return certificate_for(name, key, issuer, IS_AUTHORITY, KEY_USAGE), key


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2048)


def brings(  # noqa: PLR0913 - everything but the first two has a default
    certificate: str,
    key: str,
    chain: str = "",
    *,
    given: str | None = None,
    own: str | None = None,
    overlap: timedelta = DAY,
) -> None:
    authorities.bring(OPERATOR, certificate, chain, key, given, own, overlap)


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
    first_start.prepare(scene.services.settings)
    with policy_change():
        authorities.ensure(SERVICE, None)
    assert scene.ca_pem() == before


@ON_SQLITE
def test_a_passphrase_encrypts_its_key_where_it_is_stored(settings: Settings) -> None:
    careful = replace(settings, ca_key_passphrase="the authority's own secret")
    first_start.prepare(careful)
    with session():
        assert Authority.get().key.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    scene = Scene.opened(careful)
    scene.moves_in("bob")
    assert scene.certifies("bob").subject.rfc4514_string() == "CN=bob"
    assert scene.crl().issuer.rfc4514_string() == "CN=authsvc certificate authority"
    scene.close()


@ON_SQLITE
def test_a_wrong_passphrase_stops_the_start_with_one_clear_line(settings: Settings) -> None:
    first_start.prepare(replace(settings, ca_key_passphrase="right"))
    with pytest.raises(AuthsvcError, match="AUTHSVC_CA_KEY_PASSPHRASE"):
        first_start.prepare(replace(settings, ca_key_passphrase="wrong"))


@ON_SQLITE
def test_an_authority_that_has_run_out_signs_nothing_and_says_so(scene: Scene) -> None:
    certificate, key = root(valid=(-DAY, 2 * DAY))
    brings(pem(certificate), key_pem(key))
    with time_machine.travel(datetime.now(UTC) + 3 * DAY, tick=False):
        answer = scene.asks()
    assert answer.status_code == 409, answer.text


# One that is brought along.


@ON_SQLITE
@pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA"])
def test_a_root_of_ones_own_signs_from_then_on(scene: Scene, kind: str, tmp_path: Path) -> None:
    keys = {"RSA": rsa_key, "P-384": lambda: ec.generate_private_key(ec.SECP384R1())}
    certificate, key = root(key=keys[kind]() if kind in keys else None)
    brings(pem(certificate), key_pem(key))
    issued = scene.certifies("bob")
    issued.verify_directly_issued_by(certificate)
    assert scene.crl().is_signature_valid(certificate.public_key())
    assert "stdin: OK" in verified(scene, tmp_path, issued)
    assert subjects_of(scene) == ["CN=our root", "CN=authsvc certificate authority"]


def verified(scene: Scene, directory: Path, certificate: x509.Certificate) -> str:
    """Let openssl check a certificate by what the service gives to brokers."""
    trusted, lists = written(directory, "ca.pem", scene.ca_pem()), written(directory, "crl.pem", scene.crl_pem())
    return openssl("verify", "-crl_check", "-CRLfile", lists, "-CAfile", trusted, stdin=pem(certificate))


@ON_SQLITE
def test_an_intermediate_signs_and_its_chain_goes_to_the_broker(scene: Scene, tmp_path: Path) -> None:
    top = root()
    middle = below(top, "our middle")
    last = below(middle, "our plant")
    brings(pem(last[0]), key_pem(last[1]), pem(middle[0]) + pem(top[0]))
    answer = scene.asks()
    issued = x509.load_pem_x509_certificate(answer.get_json()["certificate"].encode())
    assert "stdin: OK" in verified(scene, tmp_path, issued)
    chain = x509.load_pem_x509_certificates(answer.get_json()["caCertificate"].encode())
    assert [each.subject.rfc4514_string() for each in chain] == ["CN=our plant", "CN=our middle", "CN=our root"]
    assert subjects_of(scene)[:3] == ["CN=our plant", "CN=our middle", "CN=our root"]


@ON_SQLITE
def test_files_without_a_last_line_break_do_not_run_into_each_other(scene: Scene) -> None:
    top = root()
    last = below(top)
    brings(pem(last[0]).rstrip(), key_pem(last[1]), pem(top[0]).rstrip())
    assert len(subjects_of(scene)) == 3
    chain = scene.asks().get_json()["caCertificate"]
    assert len(x509.load_pem_x509_certificates(chain.encode())) == 2


@ON_SQLITE
def test_a_key_that_came_encrypted_is_kept_under_our_own_passphrase(scene: Scene) -> None:
    certificate, key = root()
    brings(pem(certificate), key_pem(key, "theirs"), given="theirs", own="ours")
    with session():
        stored = Authority.get(Authority.retires_at.is_null()).key
    assert stored.startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    careful = scene.under(ca_key_passphrase="ours")
    careful.certifies("bob").verify_directly_issued_by(certificate)
    careful.close()


def _mismatched() -> tuple[str, str, str]:
    return pem(root()[0]), key_pem(root()[1]), ""


def _certificate(*extensions: x509.ExtensionType, **options: Any) -> tuple[str, str, str]:
    certificate, key = root("ours", *extensions, **options)
    return pem(certificate), key_pem(key), ""


def _chained(*chain: tuple[Any, Any]) -> tuple[str, str, str]:
    certificate, key = below(root())
    return pem(certificate), key_pem(key), "".join(pem(each) for each, _ in chain)


def _of_another_kind() -> tuple[str, str, str]:
    return _certificate(key=ed25519.Ed25519PrivateKey.generate())


UNFIT = {
    "another's key": (_mismatched, "key"),
    "a client": (lambda: _certificate(x509.BasicConstraints(ca=False, path_length=None), SIGNS_NOTHING), "certificate"),
    "an authority that may not sign": (lambda: _certificate(IS_AUTHORITY, SIGNS_NOTHING), "certificate"),
    "no word about use": (lambda: _certificate(IS_AUTHORITY), "certificate"),
    "no extension at all": (lambda: _certificate(KEY_USAGE), "certificate"),
    "expired": (lambda: _certificate(valid=(-2 * DAY, -DAY)), "certificate"),
    "not yet valid": (lambda: _certificate(valid=(DAY, 2 * DAY)), "certificate"),
    "Ed25519": (_of_another_kind, "key"),
    "a chain that leads nowhere": (lambda: _chained(root("a stranger")), "chain"),
    "junk": (lambda: ("junk", "junk", ""), "certificate"),
    "junk for a key": (lambda: (pem(root()[0]), "junk", ""), "key"),
    "junk for a chain": (lambda: (*_certificate()[:2], "junk"), "certificate"),
}


@ON_SQLITE
@pytest.mark.parametrize(("make", "field"), UNFIT.values(), ids=UNFIT.keys())
def test_what_could_not_sign_for_clients_is_refused(scene: Scene, make: Any, field: str) -> None:
    certificate, key, chain = make()
    with pytest.raises(InvalidInput) as error:
        brings(certificate, key, chain)
    assert [each.field for each in error.value.errors] == [field]
    assert subjects_of(scene) == ["CN=authsvc certificate authority"]


@ON_SQLITE
def test_a_wrong_passphrase_for_what_is_brought_is_refused(scene: Scene) -> None:
    certificate, key = root()
    for given in (None, "wrong"):
        with pytest.raises(InvalidInput, match="passphrase"):
            brings(pem(certificate), key_pem(key, "theirs"), given=given)


@ON_SQLITE
@pytest.mark.parametrize("chain", [[], ["our middle"]], ids=["none", "unfinished"])
def test_an_intermediate_whose_chain_does_not_reach_a_root_is_refused(scene: Scene, chain: list[str]) -> None:
    middle = below(root(), "our middle")
    last = below(middle, "our plant")
    with pytest.raises(InvalidInput) as error:
        brings(pem(last[0]), key_pem(last[1]), pem(middle[0]) if chain else "")
    assert [each.field for each in error.value.errors] == ["chain"]


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
