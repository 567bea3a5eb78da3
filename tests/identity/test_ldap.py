"""Users of an LDAP directory: a real OpenLDAP server, asked as the service asks it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from authsvc.errors import Busy
from authsvc.identity.ldap import MAX_NESTING, Directory
from authsvc.settings import from_environment
from tests.certificates.tools import openssl
from tests.identity.slapd import ADMINS, BASE, PROGRAM, SERVICE_DN, Slapd, dn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not PROGRAM, reason="Debian's package slapd is missing")

PEOPLE = {"alice": "wonderland", "bob": "builder", "*": "a star's password", "eve": "e", "O'Hara (line)": "x"}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with `server.key` and its self-signed certificate for localhost, `server.crt`."""
    directory = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", directory / "server.key")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2")
    openssl("req", "-x509", *key, *names, "-out", directory / "server.crt")
    return directory


@pytest.fixture(scope="module")
def slapd(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[Slapd]:
    tls = (certificate / "server.crt", certificate / "server.key")
    with Slapd(tmp_path_factory.mktemp("slapd"), tls, PEOPLE) as slapd:
        slapd.has_groups({"plant-admins": [dn("alice")]})
        yield slapd


def directory(slapd: Slapd, *urls: str, **settings: str) -> Directory:
    return Directory(from_environment(slapd.environment(*urls or (slapd.plain,), **settings)), 4)


def test_right_password_confirms_the_user_with_the_roles_of_its_groups(slapd: Slapd) -> None:
    found = directory(slapd).confirm("Alice", "wonderland")
    assert found
    assert (found.origin, found.username, found.roles) == ("ldap", "alice", ("admin",))
    assert len(found.subject) == 36
    again = directory(slapd).confirm("ALICE", "wonderland")
    assert again
    assert again.subject == found.subject


def test_user_without_a_group_has_no_roles(slapd: Slapd) -> None:
    found = directory(slapd).confirm("bob", "builder")
    assert found
    assert found.roles == ()


@pytest.mark.parametrize(
    ("username", "password"),
    [
        *(("alice", "wrong"), ("alice", ""), ("alice", "\0"), ("alice", "wonderland\0"), ("nobody", "wonderland")),
        *(("al*", "wonderland"), ("*)(uid=alice", "wonderland"), ("alice)(|(uid=*", "wonderland")),
        *(("\\2a", "a star's password"), ("", "wonderland"), ("alice\0", "wonderland"), (dn("alice"), "wonderland")),
    ],
)
def test_wrong_credentials_and_filters_in_the_name_confirm_nobody(slapd: Slapd, username: str, password: str) -> None:
    assert directory(slapd).confirm(username, password) is None


@pytest.mark.parametrize("username", ["*", "O'Hara (line)"])
def test_special_characters_of_filters_are_escaped(slapd: Slapd, username: str) -> None:
    found = directory(slapd).confirm(username, PEOPLE[username])
    assert found
    assert found.username is None


def test_empty_password_is_not_sent(slapd: Slapd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unasked:
        unasked.setblocking(False)
        url = f"ldap://127.0.0.1:{unasked.getsockname()[1]}"
        assert directory(slapd, url).confirm("alice", "") is None
        with pytest.raises(BlockingIOError):
            unasked.accept()


def test_nested_groups_give_their_roles(slapd: Slapd) -> None:
    members = [dn("eve")]
    for number in range(MAX_NESTING - 1, 0, -1):
        slapd.has_groups({f"nested-{number}": members})
        members = [f"cn=nested-{number},ou=groups,{BASE}"]
    # In a circle too, as nothing forbids.
    slapd.has_groups({"plant-admins": [dn("alice"), *members, ADMINS]})
    found = directory(slapd).confirm("eve", "e")
    assert found
    assert found.roles == ("admin",)


def test_group_with_names_as_members_gives_its_roles_to_all_spellings(slapd: Slapd) -> None:
    slapd.has_posix_group("named", ["alice"])
    named = directory(slapd, roles=f'{{"cn=named,ou=groups,{BASE}": ["minimum-access"]}}')
    for typed in ("alice", "ALICE"):
        found = named.confirm(typed, "wonderland")
        assert found
        assert found.roles == ("minimum-access",)


def test_group_with_two_names_is_not_one_below_another(slapd: Slapd) -> None:
    slapd.has_group_of(f"cn=shift+ou=all,ou=groups,{BASE}", [dn("bob")])
    for separator, roles in ((",", ()), ("+", ("admin",))):
        group = f"cn=shift{separator}ou=all,ou=groups,{BASE}"
        found = directory(slapd, roles=f'{{"{group}": ["admin"]}}').confirm("bob", "builder")
        assert found
        assert found.roles == roles


def test_group_names_are_compared_as_the_directory_does(slapd: Slapd) -> None:
    spelled = '{"CN=Plant-Admins, OU=Groups, DC=plant, DC=example": ["minimum-access"]}'
    found = directory(slapd, roles=spelled).confirm("alice", "wonderland")
    assert found
    assert found.roles == ("minimum-access",)


def test_groups_are_searched_below_their_own_base(slapd: Slapd) -> None:
    found = directory(slapd, user_base=f"ou=people,{BASE}").confirm("alice", "wonderland")
    assert found
    assert found.roles == ()
    settings = {"user_base": f"ou=people,{BASE}", "group_base": f"ou=groups,{BASE}"}
    found = directory(slapd, **settings).confirm("alice", "wonderland")
    assert found
    assert found.roles == ("admin",)


def test_ldaps_and_starttls_check_the_certificate(slapd: Slapd, certificate: Path) -> None:
    for url in (slapd.tls, slapd.start_tls):
        assert directory(slapd, url, ca_file=str(certificate / "server.crt")).confirm("alice", "wonderland")
        with pytest.raises(Busy):
            directory(slapd, url).confirm("alice", "wonderland")
        other_name = url.replace("localhost", "127.0.0.1")
        with pytest.raises(Busy):
            directory(slapd, other_name, ca_file=str(certificate / "server.crt")).confirm("alice", "wonderland")


def test_several_servers_are_asked_in_order(slapd: Slapd) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"ldap://127.0.0.1:{closed.getsockname()[1]}"
        assert directory(slapd, away, slapd.plain).confirm("alice", "wonderland")
        with pytest.raises(Busy) as error:
            directory(slapd, away).confirm("alice", "wonderland")
    assert error.value.code == "directory-unavailable"


def test_wrong_password_is_not_tried_at_the_next_server(slapd: Slapd) -> None:
    before = slapd.log.read_text().count(f'BIND dn="{dn("alice")}"')
    assert directory(slapd, slapd.plain, slapd.plain).confirm("alice", "wrong") is None
    assert slapd.log.read_text().count(f'BIND dn="{dn("alice")}"') == before + 1


@pytest.mark.parametrize(
    "settings",
    [
        {"bind_password": "wrong"},
        {"bind_dn": f"cn=nobody,{BASE}"},
        {"user_base": "dc=elsewhere"},
        {"user_filter": "(objectClass=*)(uid={username})"},
        {"user_filter": "(|(uid={username})(objectClass=inetOrgPerson))"},
    ],
)
def test_wrong_settings_let_nobody_in(slapd: Slapd, settings: dict[str, str]) -> None:
    with pytest.raises(Busy):
        directory(slapd, **settings).confirm("alice", "wonderland")


@pytest.mark.slow
def test_server_that_never_answers_holds_a_sign_in_for_its_timeout_only(slapd: Slapd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kept: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    kept.append(silent.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        url = f"ldap://127.0.0.1:{silent.getsockname()[1]}"
        assert directory(slapd, url, slapd.plain).confirm("alice", "wonderland")
        for each in kept:
            each.close()


def test_more_sign_ins_than_slots_are_refused_at_once(slapd: Slapd) -> None:
    full = Directory(from_environment(slapd.environment(slapd.plain)), 0)
    with pytest.raises(Busy):
        full.confirm("alice", "wonderland")


def test_same_name_of_another_entry_is_another_subject(slapd: Slapd) -> None:
    slapd.add("leaver", "first")
    first = directory(slapd).confirm("leaver", "first")
    slapd.delete("leaver")
    slapd.add("leaver", "second")
    second = directory(slapd).confirm("leaver", "second")
    assert first
    assert second
    assert first.subject != second.subject
    assert SERVICE_DN not in (first.subject, second.subject)
