"""LDAP directories: a user is searched for with a service account, and then bound with its own password."""

from __future__ import annotations

import ssl
import uuid
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import structlog
from ldap3 import ANONYMOUS, NO_ATTRIBUTES, NONE, SIMPLE, SUBTREE, Connection, Server, Tls
from ldap3.core.exceptions import LDAPException
from ldap3.utils.conv import escape_filter_chars
from ldap3.utils.dn import parse_dn

from authsvc.accounts.users import Origin
from authsvc.credentials.hashing import slot
from authsvc.credentials.usernames import directory_username
from authsvc.errors import Busy
from authsvc.identity.confirmed import ConfirmedIdentity, roles_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from authsvc.settings import Settings

log = structlog.get_logger()

ISSUER = "ldap"
TIMEOUT_SECONDS = 5
"""How long to wait for a connection, and then for each answer."""
MAX_GROUPS = 1000
MAX_NESTING = 10
_GROUPS_IN_FILTER = 50
# The attribute that identifies an entry forever: RFC 4530, Active Directory, and 389 Directory Server.
_IDS = ("entryUUID", "objectGUID", "nsUniqueId")
_SUCCESS, _NO_SUCH_OBJECT, _INVALID_CREDENTIALS = 0, 32, 49
# Other results of a bind with which a directory refuses a person: an inappropriate or locked account, a password rule.
_PERSON_REFUSED = {19, _NO_SUCH_OBJECT, 48, _INVALID_CREDENTIALS, 50, 53}


class _Person(NamedTuple):
    """An entry of the directory; `subject` is its unchangeable id."""

    dn: str
    subject: str
    uids: tuple[str, ...]


class _Unusable(Exception):
    """A server answers, but not in a way that lets anybody sign in."""


class _Tls(Tls):
    """TLS as Python's `ssl` does it, which checks the host name too. The library's own check leaves sockets open."""

    def wrap_socket(self, connection: Connection, do_handshake: bool = False) -> None:  # noqa: ARG002
        """Replace the connection's socket by an encrypted one."""
        context = ssl.create_default_context(cafile=self.ca_certs_file)
        connection.socket = context.wrap_socket(connection.socket, server_hostname=connection.server.host)


class Directory:
    """The servers of one LDAP directory, asked in the order of `AUTHSVC_LDAP_URL` until one is usable.

    Up to `slots` sign-ins run at a time; beyond that a sign-in is `Busy` at once.
    """

    def __init__(self, settings: Settings, slots: int) -> None:
        self._urls = settings.ldap_url
        self._ca_file = settings.ldap_ca_file
        self._bind_dn, self._bind_password = settings.ldap_bind_dn, settings.ldap_bind_password
        self._user_base = settings.ldap_user_base or ""
        self._user_filter = settings.ldap_user_filter
        self._group_base = settings.ldap_group_base or self._user_base
        self._roles = {_normal(group): roles for group, roles in (settings.ldap_roles or {}).items()}
        self._lasts = timedelta(days=settings.ldap_max_age_days)
        self._slots = BoundedSemaphore(slots)

    def confirm(self, given: str, password: str) -> ConfirmedIdentity | None:
        """Return the user with this name and password; None if they are wrong, `Busy` if no server is usable.

        A user is asked about at one server only, so that a wrong password counts once for the directory's own lock.
        """
        # RFC 4513 5.1.2: a bind without a password always succeeds, and proves nothing.
        if not password or "\0" in password:
            return None
        with slot(self._slots, _away()):
            for url in self._urls:
                try:
                    return self._confirm_at(url, given, password)
                except (LDAPException, OSError, ValueError, _Unusable) as error:
                    reason = str(error) if isinstance(error, _Unusable) else type(error).__name__
                    log.warning("LDAP server cannot be used", server=url, reason=reason)
        raise _away()

    def _confirm_at(self, url: str, given: str, password: str) -> ConfirmedIdentity | None:
        with self._connection(url) as search:
            self._bind(search, self._bind_dn, self._bind_password)
            person = self._find_person(search, given)
            if person is None:
                return None
            with self._connection(url) as own:
                if not self._bind(own, person.dn, password, is_person=True):
                    return None
            roles = roles_of(self._groups(search, person), self._roles)
        return ConfirmedIdentity(Origin.LDAP, ISSUER, person.subject, directory_username(given), roles, self._lasts)

    @contextmanager
    def _connection(self, url: str) -> Iterator[Connection]:
        """Yield a connection that nobody is bound to yet; with ldaps:// or ldap+starttls:// it is encrypted."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        server = Server(
            host,
            parts.port or (636 if parts.scheme == "ldaps" else 389),
            use_ssl=parts.scheme == "ldaps",
            tls=_Tls(ca_certs_file=self._ca_file),
            get_info=NONE,
            connect_timeout=TIMEOUT_SECONDS,
        )
        # Without referrals: the password must not be sent to a server that the settings do not name.
        connection = Connection(
            server, auto_referrals=False, receive_timeout=TIMEOUT_SECONDS, check_names=False, read_only=True
        )
        try:
            connection.open(read_server_info=False)
            if parts.scheme == "ldap+starttls":
                connection.start_tls(read_server_info=False)
            yield connection
        finally:
            with suppress(LDAPException, OSError):
                connection.unbind()
            if connection.socket is not None:  # a failed handshake leaves it open
                connection.socket.close()

    def _bind(self, connection: Connection, dn: str | None, password: str | None, *, is_person: bool = False) -> bool:
        """Bind, anonymously for the DN None, and return whether that was accepted; others than persons must be."""
        connection.authentication = ANONYMOUS if dn is None else SIMPLE
        connection.user, connection.password = dn, password
        connection.bind(read_server_info=False)
        result = connection.result["result"]
        if result == _SUCCESS:
            return True
        if is_person and result in _PERSON_REFUSED:
            return False
        who = "a user" if is_person else "AUTHSVC_LDAP_BIND_DN"
        raise _Unusable(f"bind of {who}: result {result}")

    def _find_person(self, connection: Connection, given: str) -> _Person | None:
        """Return the one person with this name; None if there is none."""
        condition = self._user_filter.replace("{username}", escape_filter_chars(given))
        entries = self._search(connection, self._user_base, condition, [*_IDS, "uid"], 2)
        if not entries:
            return None
        if len(entries) > 1:
            raise _Unusable("AUTHSVC_LDAP_USER_FILTER finds several entries for one username")
        attributes = {name.lower(): values for name, values in entries[0]["raw_attributes"].items()}
        for name in _IDS:
            values = attributes.get(name.lower())
            if values:
                raw: bytes = values[0]
                subject = str(uuid.UUID(bytes_le=raw)) if name == "objectGUID" else raw.decode().lower()
                return _Person(entries[0]["dn"], subject, tuple(uid.decode() for uid in attributes.get("uid", ())))
        raise _Unusable(f"the entry shows none of {', '.join(_IDS)} to AUTHSVC_LDAP_BIND_DN")

    def _groups(self, connection: Connection, person: _Person) -> set[str]:
        """Return the normalized DNs of the person's groups, of the groups that contain these, and so on.

        Groups are searched from their members upwards, one level of nesting at a time. `memberOf` is not used: some
        directories do not have it, and none has nested groups in it. `memberUid` has a case, unlike `uid`: so the
        entry's own spelling is searched for, not the one that was typed.
        """
        found: set[str] = set()
        condition = "".join(f"(memberUid={escape_filter_chars(uid)})" for uid in person.uids)
        members = [person.dn]
        for _ in range(MAX_NESTING):
            containing: dict[str, str] = {}
            for start in range(0, len(members), _GROUPS_IN_FILTER):
                for member in members[start : start + _GROUPS_IN_FILTER]:
                    escaped = escape_filter_chars(member)
                    condition += f"(member={escaped})(uniqueMember={escaped})"
                entries = self._search(connection, self._group_base, f"(|{condition})", NO_ATTRIBUTES, MAX_GROUPS)
                containing |= {_normal(entry["dn"]): entry["dn"] for entry in entries}
                condition = ""
            members = [name for normal, name in containing.items() if normal not in found]
            found |= containing.keys()
            if not members or len(found) > MAX_GROUPS:
                break
        return found

    def _search(
        self, connection: Connection, base: str, condition: str, attributes: Any, limit: int
    ) -> list[dict[str, Any]]:
        connection.search(base, condition, SUBTREE, attributes=attributes, size_limit=limit, time_limit=TIMEOUT_SECONDS)
        result = connection.result["result"]
        if result != _SUCCESS:
            raise _Unusable(f"search below {base}: result {result}")
        return [entry for entry in connection.response or () if entry["type"] == "searchResEntry"]


def _normal(dn: str) -> str:
    """Return a DN in one spelling: lower case, without spaces around separators. Other text is only lowered."""
    try:
        return "".join(f"{name}={value}{separator}" for name, value, separator in parse_dn(dn.casefold(), strip=True))
    except LDAPException:
        return dn.casefold()


def _away() -> Busy:
    message = "the directory cannot be reached; try again later, or sign in as a local administrator"
    return Busy(message, "directory-unavailable")
