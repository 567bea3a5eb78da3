"""Grants given in advance: the first contact of a name is let in at once, also while the registry is locked; once."""

from __future__ import annotations

import csv
import io
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from authsvc import audit, roles, stored, users
from authsvc.errors import Conflict, InvalidInput, NotFound, invalid
from authsvc.paging import Page
from authsvc.storage.database import database_time, session, transaction
from authsvc.stored import permission
from authsvc.usernames import validate_username
from registry import records, window
from registry.decisions import Grant, existing_roles
from registry.models import Preauthorization

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from authsvc.actors import Actor
    from authsvc.permissions import Permission

MAX_CSV_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Advance:
    """One grant in advance: for whom, what it gives, for which key alone if one is named, and until when."""

    username: str
    roles: tuple[str, ...] = ()
    permissions: tuple[Permission, ...] = ()
    csr_fingerprint: str | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AdvanceRecord:
    """A stored grant in advance, with who gave it."""

    id: str
    advance: Advance
    created_by: str
    created_at: datetime


def create(actor: Actor, advances: Iterable[Advance]) -> list[AdvanceRecord]:
    """Store grants in advance, all or none; `Conflict` for a name that has one, is registered, or is a user."""
    with transaction():
        window.hold()
        return [_create(actor, advance) for advance in advances]


def search(text: str, page: int, per_page: int) -> Page[AdvanceRecord]:
    """Return one page of those that were not used yet, by username."""
    query = Preauthorization.select()
    if text:
        query = query.where(Preauthorization.username.contains(text))
    with session():
        rows = query.order_by(Preauthorization.username).paginate(page, per_page)
        return Page([_record(row) for row in rows], page, per_page, query.count())


def delete(actor: Actor, advance_id: str) -> None:
    """Take one back before it is used."""
    with transaction():
        row = Preauthorization.get_or_none(Preauthorization.id == advance_id)
        if row is None:
            raise NotFound("no such preauthorization", "preauthorization-not-found")
        row.delete_instance()
        audit.record(actor, "preauthorization.delete", f"preauthorization:{row.username}")


def find(username: str, csr_fingerprint: str | None) -> AdvanceRecord | None:
    """Return the grant in advance that this contact may use, if there is one."""
    row = _by_name(username)
    if row is None or (row.csr_fingerprint is not None and row.csr_fingerprint != csr_fingerprint):
        return None
    if row.expires_at is not None and row.expires_at <= database_time():
        return None
    return _record(row)


def use(found: AdvanceRecord) -> Grant:
    """Use one up, inside the transaction that makes the user, and return what it grants."""
    if not Preauthorization.delete().where(Preauthorization.id == found.id).execute():
        raise Conflict("the preauthorization was used", "preauthorization-used")
    return Grant(existing_roles(found.advance.roles), found.advance.permissions)


def create_from_csv(actor: Actor, text: str) -> int:
    """Store one grant in advance for each line, all or none, and return how many; errors name the line."""
    with transaction():
        window.hold()
        count = 0
        for line, advance in _read_csv(text):
            try:
                _create(actor, advance)
            except InvalidInput as error:
                raise invalid(f"csv[{line}]", error.errors[0].message) from None
            except Conflict as error:
                raise Conflict(f"line {line}: {error.message}", error.code) from None
            count += 1
    return count


def _read_csv(text: str) -> Iterator[tuple[int, Advance]]:
    """Yield `username,roles,csrFingerprint` lines with their numbers; roles are parted by spaces."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        columns = reader.fieldnames or []
        if "username" not in columns or not set(columns) <= {"username", "roles", "csrFingerprint"}:
            raise invalid("csv", "must begin with the line username,roles,csrFingerprint (the last two are optional)")
        for count, fields in enumerate(reader, start=1):
            if count > MAX_CSV_ROWS:
                raise invalid("csv", f"must have at most {MAX_CSV_ROWS} lines")
            yield reader.line_num, _advance(fields, reader.line_num)
    except csv.Error:
        raise invalid("csv", "is not a list of comma-separated values") from None


def _advance(fields: dict[str, str | None], line: int) -> Advance:
    if "" in fields:
        raise invalid(f"csv[{line}]", "has more fields than the first line names")
    fingerprint = fields.get("csrFingerprint") or None
    if fingerprint and not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise invalid(f"csv[{line}]", "csrFingerprint must be 64 hexadecimal digits in lower case")
    given = tuple((fields.get("roles") or "").split())
    return Advance((fields["username"] or "").strip(), given, (), fingerprint)


def _create(actor: Actor, advance: Advance) -> AdvanceRecord:
    name = validate_username(advance.username)
    try:
        window.check_roles(advance.roles)
    except InvalidInput as error:
        raise error.within(name) from None
    # What is given in advance is given by whoever writes it down.
    from_roles = stored.role_permissions(advance.roles).values()
    actor.must_hold([*advance.permissions, *(each for given in from_roles for each in given)])
    _forget_outdated(name)
    if users.exists(name) or records.current(name) or _by_name(name):
        raise Conflict(f"{name} is a user, has registered, or is preauthorized already", "username-taken")
    row = Preauthorization.create(
        id=uuid.uuid4().hex,
        username=name,
        roles=list(advance.roles),
        permissions=roles.permission_facts(advance.permissions),
        csr_fingerprint=advance.csr_fingerprint,
        expires_at=advance.expires_at,
        created_by=actor.username,
        created_at=database_time(),
    )
    facts = {"roles": row.roles, "permissions": row.permissions, "csrFingerprint": row.csr_fingerprint}
    audit.record(actor, "preauthorization.create", f"preauthorization:{name}", after=facts)
    return _record(row)


def _by_name(username: str) -> Preauthorization | None:
    row: Preauthorization | None = Preauthorization.get_or_none(Preauthorization.username == username)
    return row


def _forget_outdated(username: str) -> None:
    outdated = Preauthorization.expires_at <= database_time()
    Preauthorization.delete().where(Preauthorization.username == username, outdated).execute()


def _record(row: Preauthorization) -> AdvanceRecord:
    permissions = tuple(permission(**words) for words in row.permissions)
    advance = Advance(row.username, tuple(row.roles), permissions, row.csr_fingerprint, row.expires_at)
    return AdvanceRecord(row.id, advance, row.created_by, row.created_at)
