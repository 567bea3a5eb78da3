"""Grants given in advance: the first contact of a name is let in at once, also while the registry is locked; once."""

from __future__ import annotations

import csv
import io
import itertools
import re
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peewee import chunked

from authsvc import audit, roles, stored
from authsvc.errors import Conflict, InvalidInput, NotFound, invalid
from authsvc.paging import Page
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.models import User
from authsvc.stored import permission
from authsvc.usernames import validate_username
from registry import window
from registry.decisions import Grant, existing_roles
from registry.models import Preauthorization, Registration
from registry.states import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from authsvc.actors import Actor
    from authsvc.permissions import Permission

MAX_CSV_ROWS = 10_000
_BATCH = 200


@dataclass(frozen=True, slots=True)
class Advance:
    """One grant in advance: for whom, with what, for which key alone, until when; and the line of a file it is from."""

    username: str
    roles: tuple[str, ...] = ()
    permissions: tuple[Permission, ...] = ()
    csr_fingerprint: str | None = None
    expires_at: datetime | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class AdvanceRecord:
    """A stored grant in advance, with who gave it."""

    id: str
    advance: Advance
    created_by: str
    created_at: datetime


def create(actor: Actor, advances: Iterable[Advance]) -> list[AdvanceRecord]:
    """Store grants in advance, all or none; `Conflict` for a name that has one, is registered, or is a user."""
    wanted = list(advances)
    for advance in wanted:
        with _naming(advance):
            validate_username(advance.username)
    with transaction():
        window.hold()
        _check_roles(actor, wanted)
        _check_names(wanted)
        now = database_time()
        rows = [_row(actor, advance, now) for advance in wanted]
        for batch in chunked(rows, _BATCH):
            Preauthorization.insert_many(batch).execute()
        audit.record_many(actor, "preauthorization.create", map(_event, wanted))
        return [AdvanceRecord(row["id"], each, actor.username, now) for row, each in zip(rows, wanted, strict=True)]


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


def names_among(names: Iterable[str]) -> set[str]:
    """Return those of the names that have a grant in advance."""
    return {name for batch in chunked(names, _BATCH) for name in _named(Preauthorization, batch)}


def use(found: AdvanceRecord) -> Grant:
    """Use one up, inside the transaction that makes the user, and return what it grants."""
    if not Preauthorization.delete().where(Preauthorization.id == found.id).execute():
        raise Conflict("the preauthorization was used", "preauthorization-used")
    return Grant(existing_roles(found.advance.roles), found.advance.permissions)


def read_csv(text: str) -> list[Advance]:
    """Read `username,roles,csrFingerprint` lines; roles are parted by spaces. Errors name the line."""
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        columns = reader.fieldnames or []
        if "username" not in columns or not set(columns) <= {"username", "roles", "csrFingerprint"}:
            raise invalid("csv", "must begin with the line username,roles,csrFingerprint (the last two are optional)")
        advances = [_advance(fields, reader.line_num) for fields in itertools.islice(reader, MAX_CSV_ROWS + 1)]
    except csv.Error:
        raise invalid("csv", "is not a list of comma-separated values") from None
    if len(advances) > MAX_CSV_ROWS:
        raise invalid("csv", f"must have at most {MAX_CSV_ROWS} lines")
    return advances


def _advance(fields: dict[str, str | None], line: int) -> Advance:
    if "" in fields:
        raise invalid(f"csv[{line}]", "has more fields than the first line names")
    fingerprint = fields.get("csrFingerprint") or None
    if fingerprint and not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise invalid(f"csv[{line}]", "csrFingerprint must be 64 hexadecimal digits in lower case")
    given = tuple((fields.get("roles") or "").split())
    return Advance((fields["username"] or "").strip(), given, (), fingerprint, None, line)


@contextmanager
def _naming(advance: Advance) -> Iterator[None]:
    """Let an error say which line of a file it is about."""
    try:
        yield
    except InvalidInput as error:
        raise (invalid(f"csv[{advance.line}]", error.errors[0].message) if advance.line else error) from None
    except Conflict as error:
        raise (Conflict(f"line {advance.line}: {error.message}", error.code) if advance.line else error) from None


def _check_roles(actor: Actor, wanted: list[Advance]) -> None:
    given = stored.role_policies({role for advance in wanted for role in advance.roles})
    for advance in wanted:
        with _naming(advance):
            for position, role in enumerate(advance.roles):
                if role not in given:
                    raise invalid(f"roles[{position}]", "no such role")
    # What is given in advance is given by whoever writes it down.
    actor.must_hold(stored.rights_of_roles(given))
    actor.must_hold([each for advance in wanted for each in advance.permissions])


def _check_names(wanted: list[Advance]) -> None:
    names = [advance.username for advance in wanted]
    taken: set[str] = set()
    for batch in chunked(names, _BATCH):
        outdated = Preauthorization.expires_at <= database_time()
        Preauthorization.delete().where(Preauthorization.username.in_(batch), outdated).execute()
        taken |= _named(User, batch) | _named(Preauthorization, batch)
        taken |= _named(Registration, batch, Registration.status != Status.EXPIRED)
    for advance in wanted:
        if advance.username in taken:
            with _naming(advance):
                message = f"{advance.username} is a user, has registered, or is preauthorized already"
                raise Conflict(message, "username-taken")
        taken.add(advance.username)


def _named(model: Any, names: Iterable[str], *conditions: Any) -> set[str]:
    return {name for (name,) in model.select(model.username).where(model.username.in_(names), *conditions).tuples()}


def _row(actor: Actor, advance: Advance, now: datetime) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex,
        "username": advance.username,
        "roles": list(advance.roles),
        "permissions": roles.permission_facts(advance.permissions),
        "csr_fingerprint": advance.csr_fingerprint,
        "expires_at": advance.expires_at,
        "created_by": actor.username,
        "created_at": now,
    }


def _event(advance: Advance) -> tuple[str, audit.Facts]:
    facts: audit.Facts = {"roles": list(advance.roles), "permissions": roles.permission_facts(advance.permissions)}
    return f"preauthorization:{advance.username}", facts | {"csrFingerprint": advance.csr_fingerprint}


def _by_name(username: str) -> Preauthorization | None:
    row: Preauthorization | None = Preauthorization.get_or_none(Preauthorization.username == username)
    return row


def _record(row: Preauthorization) -> AdvanceRecord:
    permissions = tuple(permission(**words) for words in row.permissions)
    advance = Advance(row.username, tuple(row.roles), permissions, row.csr_fingerprint, row.expires_at)
    return AdvanceRecord(row.id, advance, row.created_by, row.created_at)
