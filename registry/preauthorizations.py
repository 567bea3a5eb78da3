"""Grants given in advance: the first contact of a name is let in at once, also while the registry is locked; once.

One that is bound to a one-time secret or to a key is for whoever has it, whatever others tried under the name. One that
is bound to nothing goes to the first contact, so it is held for an administrator where somebody tried the name earlier.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from peewee import chunked

from authsvc.activity import audit
from authsvc.credentials.passwords import generate
from authsvc.credentials.usernames import validate_username
from authsvc.errors import Conflict, InvalidInput, NotFound, invalid
from authsvc.record_json import json_value
from authsvc.storage import policy_reader
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.models import User
from authsvc.storage.paging import Page
from authsvc.storage.policy_reader import permission
from registry import lock
from registry.enrolment_keys import digest_of
from registry.models import Preauthorization, Registration
from registry.states import HeldReason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from authsvc.credentials.passwords import PasswordPolicy
    from authsvc.policy.actors import Actor
    from authsvc.policy.permissions import Permission

MAX_CSV_ROWS = 10_000
_BATCH = 200
# How far back an attempt counts that was forgotten since; as long as an expired registration is kept.
_TRACES_KEPT = timedelta(days=7)
_BOUND_ALONE = "gives rights over this service (http); bind the preauthorization to a secret or a key"


@dataclass(frozen=True, slots=True)
class NewPreauthorization:
    """One grant in advance: for whom, with what, until when; and the line of a file it is from.

    It is bound to a key, to a one-time secret that the service makes, or to nothing.
    """

    username: str
    roles: tuple[str, ...] = ()
    permissions: tuple[Permission, ...] = ()
    csr_fingerprint: str | None = None
    expires_at: datetime | None = None
    line: int | None = None
    with_secret: bool = False

    @property
    def is_bound(self) -> bool:
        """Whether it is for the holder of a secret or key alone."""
        return self.with_secret or self.csr_fingerprint is not None


@dataclass(frozen=True, slots=True)
class PreauthorizationRecord:
    """A stored grant in advance, with who gave it, and why it needs an approval after all, if it does."""

    id: str
    advance: NewPreauthorization
    created_by: str
    created_at: datetime
    held_reason: str | None


class CreatedPreauthorization(NamedTuple):
    """A grant in advance that was just made; the secret it is bound to, if any, is shown this once."""

    record: PreauthorizationRecord
    secret: str | None


def create(
    actor: Actor, advances: Iterable[NewPreauthorization], policy: PasswordPolicy
) -> list[CreatedPreauthorization]:
    """Store grants in advance, all or none; `Conflict` for a name that has one, is registered, or is a user.

    One that is bound may be given to a name that is registered and pending: its holder takes that one's place.
    """
    wanted = list(advances)
    for advance in wanted:
        with _naming(advance):
            validate_username(advance.username)
            if advance.with_secret and advance.csr_fingerprint:
                raise invalid("withSecret", "cannot be combined with csrFingerprint")
    # A device may send it as its password, so it satisfies the policy for passwords.
    secrets = [generate(policy) if advance.with_secret else None for advance in wanted]
    with transaction():
        lock.hold()
        _check_roles(actor, wanted)
        _check_names(wanted)
        tried = _tried_names(advance.username for advance in wanted if not advance.is_bound)
        now = database_time()
        rows = [
            _row(actor, advance, now, secret, HeldReason.TRIED_BEFORE if advance.username in tried else None)
            for advance, secret in zip(wanted, secrets, strict=True)
        ]
        for batch in chunked(rows, _BATCH):
            Preauthorization.insert_many(batch).execute()
        audit.record_many(actor, "preauthorization.create", map(_event, wanted))
        return [
            CreatedPreauthorization(
                PreauthorizationRecord(row["id"], advance, actor.username, now, row["held_reason"]), secret
            )
            for row, advance, secret in zip(rows, wanted, secrets, strict=True)
        ]


def search(text: str, page: int, per_page: int) -> Page[PreauthorizationRecord]:
    """Return one page of those that were not used yet, by username."""
    query = Preauthorization.select()
    if text:
        query = query.where(Preauthorization.username.contains(text))
    with session():
        rows = query.order_by(Preauthorization.username).paginate(page, per_page)
        return Page([record_of(row) for row in rows], page, per_page, query.count())


def delete(actor: Actor, advance_id: str) -> None:
    """Take one back before it is used."""
    with transaction():
        row = Preauthorization.get_or_none(Preauthorization.id == advance_id)
        if row is None:
            raise NotFound("no such preauthorization", "preauthorization-not-found")
        row.delete_instance()
        audit.record(actor, "preauthorization.delete", f"preauthorization:{row.username}")


def read_csv(text: str, *, with_secrets: bool = False) -> list[NewPreauthorization]:
    """Read `username,roles,csrFingerprint` lines; roles are parted by spaces. Errors name the line.

    With `with_secrets` each line that names no key is bound to a one-time secret.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        columns = reader.fieldnames or []
        if "username" not in columns or not set(columns) <= {"username", "roles", "csrFingerprint"}:
            raise invalid("csv", "must begin with the line username,roles,csrFingerprint (the last two are optional)")
        rows = itertools.islice(reader, MAX_CSV_ROWS + 1)
        advances = [_advance(fields, reader.line_num, with_secrets) for fields in rows]
    except csv.Error:
        raise invalid("csv", "is not a list of comma-separated values") from None
    if len(advances) > MAX_CSV_ROWS:
        raise invalid("csv", f"must have at most {MAX_CSV_ROWS} lines")
    return advances


def _advance(fields: dict[str, str | None], line: int, with_secrets: bool) -> NewPreauthorization:
    if "" in fields:
        raise invalid(f"csv[{line}]", "has more fields than the first line names")
    fingerprint = fields.get("csrFingerprint") or None
    if fingerprint and not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise invalid(f"csv[{line}]", "csrFingerprint must be 64 hexadecimal digits in lower case")
    given = tuple((fields.get("roles") or "").split())
    with_secret = with_secrets and not fingerprint
    return NewPreauthorization((fields["username"] or "").strip(), given, (), fingerprint, None, line, with_secret)


@contextmanager
def _naming(advance: NewPreauthorization) -> Iterator[None]:
    """Let an error say which line of a file it is about."""
    try:
        yield
    except InvalidInput as error:
        raise (invalid(f"csv[{advance.line}]", error.errors[0].message) if advance.line else error) from None
    except Conflict as error:
        raise (Conflict(f"line {advance.line}: {error.message}", error.code) if advance.line else error) from None


def _check_roles(actor: Actor, wanted: list[NewPreauthorization]) -> None:
    given = policy_reader.role_policies({role for advance in wanted for role in advance.roles})
    for advance in wanted:
        with _naming(advance):
            for position, role in enumerate(advance.roles):
                if role not in given:
                    raise invalid(f"roles[{position}]", "no such role")
    # What is given in advance is given by whoever writes it down.
    actor.must_hold(policy_reader.rights_of_roles(given))
    actor.must_hold([each for advance in wanted for each in advance.permissions])
    risky = {name for name, role in given.items() if any(right.is_http_right for right in role.rights)}
    for advance in wanted:
        if advance.is_bound:
            continue
        with _naming(advance):
            for position, role in enumerate(advance.roles):
                if role in risky:
                    raise invalid(f"roles[{position}]", _BOUND_ALONE)
            for position, each in enumerate(advance.permissions):
                if each.is_http_right:
                    raise invalid(f"permissions[{position}]", _BOUND_ALONE)


def _check_names(wanted: list[NewPreauthorization]) -> None:
    names = [advance.username for advance in wanted]
    taken: set[str] = set()
    pending: set[str] = set()
    for batch in chunked(names, _BATCH):
        outdated = Preauthorization.expires_at <= database_time()
        Preauthorization.delete().where(Preauthorization.username.in_(batch), outdated).execute()
        taken |= _named(User, batch) | _named(Preauthorization, batch)
        taken |= _named(Registration, batch, Registration.status.not_in([Status.EXPIRED, Status.PENDING]))
        pending |= _named(Registration, batch, Registration.status == Status.PENDING)
    for advance in wanted:
        if advance.username in taken or (advance.username in pending and not advance.is_bound):
            with _naming(advance):
                message = f"{advance.username} is a user, has registered, or is preauthorized already"
                raise Conflict(message, "username-taken")
        taken.add(advance.username)


def _tried_names(usernames: Iterable[str]) -> set[str]:
    """Return those of the names that somebody tried earlier: their registrations expired or were deleted lately."""
    tried: set[str] = set()
    since = database_time() - _TRACES_KEPT
    for batch in chunked(usernames, _BATCH):
        tried |= _named(Registration, batch, Registration.status == Status.EXPIRED)
        targets = audit.targets_of("registration.delete", [f"registration:{name}" for name in batch], since)
        tried |= {target.removeprefix("registration:") for target in targets}
    return tried


def _named(model: Any, names: Iterable[str], *conditions: Any) -> set[str]:
    return {name for (name,) in model.select(model.username).where(model.username.in_(names), *conditions).tuples()}


def _row(
    actor: Actor, advance: NewPreauthorization, now: datetime, secret: str | None, held: HeldReason | None
) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex,
        "username": advance.username,
        "roles": list(advance.roles),
        "permissions": json_value(advance.permissions),
        "csr_fingerprint": advance.csr_fingerprint,
        "expires_at": advance.expires_at,
        "created_by": actor.username,
        "created_at": now,
        "secret_digest": digest_of(secret) if secret else None,
        "held_reason": held,
    }


def _event(advance: NewPreauthorization) -> tuple[str, audit.Facts]:
    facts: audit.Facts = {"roles": list(advance.roles), "permissions": json_value(advance.permissions)}
    bound = {"csrFingerprint": advance.csr_fingerprint, "withSecret": advance.with_secret}
    return f"preauthorization:{advance.username}", facts | bound


def record_of(row: Preauthorization) -> PreauthorizationRecord:
    """Show a row."""
    permissions = tuple(permission(**words) for words in row.permissions)
    advance = NewPreauthorization(
        row.username,
        tuple(row.roles),
        permissions,
        row.csr_fingerprint,
        row.expires_at,
        with_secret=row.secret_digest is not None,
    )
    return PreauthorizationRecord(row.id, advance, row.created_by, row.created_at, row.held_reason)
