"""Grants given in advance: the first contact of a name is let in at once, also while the registry is locked; once."""

from __future__ import annotations

import csv
import io
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from authsvc import audit, roles, stored, users
from authsvc.errors import Conflict, InvalidInput, NotFound, invalid
from authsvc.paging import Page
from authsvc.storage.database import database_time, session, transaction
from authsvc.stored import permission
from authsvc.usernames import validate_username
from registry import window
from registry.decisions import Grant
from registry.models import Preauthorization, Registration

if TYPE_CHECKING:
    from collections.abc import Iterable
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
    row: Preauthorization | None = Preauthorization.get_or_none(Preauthorization.username == username)
    if row is None or (row.csr_fingerprint is not None and row.csr_fingerprint != csr_fingerprint):
        return None
    if row.expires_at is not None and row.expires_at <= database_time():
        return None
    return _record(row)


def use(found: AdvanceRecord) -> Grant:
    """Use one up, inside the transaction that makes the user, and return what it grants."""
    if not Preauthorization.delete().where(Preauthorization.id == found.id).execute():
        raise Conflict("the preauthorization was used", "preauthorization-used")
    return Grant(found.advance.roles, found.advance.permissions)


def read_csv(text: str) -> list[Advance]:
    """Read `username,roles,csrFingerprint` lines with that header; roles are parted by spaces. Errors name the line."""
    reader = csv.DictReader(io.StringIO(text), restkey="")
    columns = reader.fieldnames or []
    if "username" not in columns or not set(columns) <= {"username", "roles", "csrFingerprint"}:
        raise invalid("csv", "must begin with the line username,roles,csrFingerprint (the last two may be left out)")
    advances = []
    for line, fields in enumerate(reader, start=2):
        if line > MAX_CSV_ROWS + 1:
            raise invalid("csv", f"must have at most {MAX_CSV_ROWS} lines")
        if "" in fields:
            raise invalid(f"csv[{line}]", "has more fields than the first line names")
        given = tuple((fields.get("roles") or "").split())
        advances.append(Advance((fields["username"] or "").strip(), given, (), fields.get("csrFingerprint") or None))
    return advances


def _create(actor: Actor, advance: Advance) -> AdvanceRecord:
    name = validate_username(advance.username)
    try:
        window.check_roles(advance.roles)
    except InvalidInput as error:
        raise error.within(name) from None
    # What is given in advance is given by whoever writes it down.
    from_roles = stored.role_permissions(advance.roles).values()
    actor.must_hold([*advance.permissions, *(each for given in from_roles for each in given)])
    if (
        users.exists(name)
        or Registration.select().where(Registration.username == name).exists()
        or Preauthorization.select().where(Preauthorization.username == name).exists()
    ):
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


def _record(row: Preauthorization) -> AdvanceRecord:
    permissions = tuple(permission(**words) for words in row.permissions)
    advance = Advance(row.username, tuple(row.roles), permissions, row.csr_fingerprint, row.expires_at)
    return AdvanceRecord(row.id, advance, row.created_by, row.created_at)
