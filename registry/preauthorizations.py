"""Preauthorizations: grants for usernames before their first contact. Each is used once, also while locked.

A preauthorization that is bound to a one-time secret or a key grants only a device that has it. One without a binding
grants the first device that uses the username. If somebody tried the username before, an administrator must approve.
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
from functools import partial
from hmac import compare_digest
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from peewee import chunked
from pydantic.alias_generators import to_camel

from authsvc.accounts.roles import with_http_rights
from authsvc.activity import audit
from authsvc.credentials.passwords import generate
from authsvc.credentials.usernames import RegistrationNames, skeleton, validate_registration_name
from authsvc.errors import Conflict, InvalidInput, NotFound, invalid
from authsvc.policy.permissions import Permission
from authsvc.record_json import from_row
from authsvc.storage import policy_reader
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.identifiers import find_id
from authsvc.storage.models import User
from authsvc.storage.paging import Page, fetch_page
from registry import lock
from registry.decisions import Grant, existing_roles
from registry.enrolment_keys import digest_of
from registry.models import Preauthorization, Registration
from registry.records import StartingRights
from registry.states import HeldReason, Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from authsvc.credentials.passwords import PasswordPolicy
    from authsvc.policy.actors import Actor
    from authsvc.policy.snapshot import RolePolicy
    from registry.mqtt_registration.attempted_names import AttemptedNames

MAX_CSV_ROWS = 10_000
_BATCH = 200
# How long deleted registrations count as earlier attempts; expired registrations are kept as long.
_ATTEMPTS_KEPT = timedelta(days=7)
# Long enough for every process to check a new preauthorization more than once.
_RECENT = timedelta(seconds=5)
_NEEDS_BINDING = "gives rights over this service (http); bind the preauthorization to a secret or a key"


@dataclass(frozen=True, slots=True)
class NewPreauthorization:
    """A preauthorization to be created; `line` is its line in a CSV file."""

    username: str
    roles: tuple[str, ...] = ()
    permissions: tuple[Permission, ...] = ()
    csr_fingerprint: str | None = None
    expires_at: datetime | None = None
    with_secret: bool = False
    line: int | None = None

    @property
    def is_bound(self) -> bool:
        """Whether only the device with a one-time secret or key is granted."""
        return self.with_secret or self.csr_fingerprint is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreauthorizationRecord(NewPreauthorization):
    """A stored preauthorization. If `held_reason` is set, its first contact needs an approval."""

    id: str
    created_by: str
    created_at: datetime
    held_reason: str | None


class CreatedPreauthorization(NamedTuple):
    """A new preauthorization and the one-time secret that it is bound to, which is stored only as a digest."""

    record: PreauthorizationRecord
    secret: str | None


class Match(NamedTuple):
    """A preauthorization as it applies to one contact; `held_reason` is None if the contact is granted at once.

    `secret` is the one-time secret that the contact sent.
    """

    record: PreauthorizationRecord
    held_reason: HeldReason | None
    secret: str | None = None

    @property
    def grants_at_once(self) -> bool:
        return self.held_reason is None

    @property
    def proves_binding(self) -> bool:
        """Whether the contact has the secret or key, so that it takes precedence over every other contact."""
        return self.grants_at_once and self.record.is_bound

    @property
    def bypasses_lock(self) -> bool:
        """Whether the contact is recorded as if the registry were unlocked."""
        return self.held_reason is not HeldReason.BINDING_NOT_MET

    @property
    def starting_rights(self) -> StartingRights:
        """The starting rights of a registration that is held."""
        if not self.bypasses_lock:
            return StartingRights(held_reason=self.held_reason)
        permissions = tuple(each.fields() for each in self.record.permissions)
        return StartingRights(existing_roles(self.record.roles), permissions, self.held_reason)


def create(
    actor: Actor,
    preauthorizations: Iterable[NewPreauthorization],
    policy: PasswordPolicy,
    digests: Mapping[str, str] = MappingProxyType({}),
    names: RegistrationNames = RegistrationNames.RESTRICTED,
) -> list[CreatedPreauthorization]:
    """Store preauthorizations, all or none; a device must be able to register with each name.

    A one-time secret is generated for each one `with_secret`, unless `digests` has that of an earlier secret for its
    username.
    Raise `Conflict` for a username that is preauthorized, registered or a user's. A bound preauthorization may name a
    pending registration, which the device with the secret or key then replaces.
    """
    wanted = list(preauthorizations)
    for one in wanted:
        with _errors_with_line(one):
            validate_registration_name(one.username, names)
            if one.with_secret and one.csr_fingerprint:
                raise invalid("withSecret", "cannot be combined with csrFingerprint")
    # A device may send the secret as its password, so it satisfies the password policy.
    secrets = [generate(policy) if one.with_secret and one.username not in digests else None for one in wanted]
    with transaction():
        lock.state_for_update()
        check_rights(actor, wanted, policy_reader.role_policies({role for one in wanted for role in one.roles}))
        _check_names(wanted)
        tried = _tried_names(one.username for one in wanted if not one.is_bound)
        now = database_time()
        rows = [
            _row(actor, one, now, digest_of(secret) if secret else digests.get(one.username), one.username in tried)
            for one, secret in zip(wanted, secrets, strict=True)
        ]
        for batch in chunked(rows, _BATCH):
            Preauthorization.insert_many(batch).execute()
        audit.record_many(actor, "preauthorization.create", map(_event, rows))
        return [
            CreatedPreauthorization(_record(Preauthorization(**row)), secret)
            for row, secret in zip(rows, secrets, strict=True)
        ]


def search(text: str, page: int, per_page: int) -> Page[PreauthorizationRecord]:
    """Return one page of unused preauthorizations by username. An empty `text` matches all."""
    query = Preauthorization.select()
    if text:
        query = query.where(Preauthorization.username.contains(text))
    return fetch_page(query.order_by(Preauthorization.username), page, per_page, convert=partial(map, _record))


def find(given: str) -> str:
    """Return the id of the preauthorization with this id, this beginning of its id, or this username."""
    by_name = Preauthorization.username == given
    return find_id(Preauthorization.select(), Preauthorization.id, by_name, given, "preauthorization")


def delete(actor: Actor, preauthorization_id: str) -> None:
    """Delete an unused preauthorization."""
    with transaction():
        row = Preauthorization.get_or_none(Preauthorization.id == preauthorization_id)
        if row is None:
            raise NotFound("no such preauthorization", "preauthorization-not-found")
        row.delete_instance()
        audit.record(actor, "preauthorization.delete", f"preauthorization:{row.username}")


def read_csv(text: str, *, with_secrets: bool = False) -> list[NewPreauthorization]:
    """Parse lines of `username,roles,csrFingerprint`, with roles separated by spaces. Errors name the line.

    With `with_secrets` each line without a fingerprint is bound to a one-time secret. Semicolons can separate the
    columns and a byte order mark can come first, as Excel writes them.
    """
    text = text.removeprefix("\ufeff")
    separator = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True, delimiter=separator)
    try:
        columns = reader.fieldnames or []
        if "username" not in columns or not set(columns) <= {"username", "roles", "csrFingerprint"}:
            raise invalid("csv", "must begin with the line username,roles,csrFingerprint (the last two are optional)")
        rows = itertools.islice(reader, MAX_CSV_ROWS + 1)
        found = [_parse_line(cells, reader.line_num, with_secrets) for cells in rows]
    except csv.Error:
        raise invalid("csv", "is not a list of comma-separated values") from None
    if len(found) > MAX_CSV_ROWS:
        raise invalid("csv", f"must have at most {MAX_CSV_ROWS} lines")
    return found


def find_match(
    username: str,
    csr_fingerprint: str | None,
    offered: Iterable[str | None],
    attempted: AttemptedNames,
    *,
    has_password: bool = False,
    has_conflicts: bool = False,
) -> Match | None:
    """Return the preauthorization of this username as it applies to a contact with this key or these secrets.

    `attempted` holds the names that this process has seen.
    """
    row: Preauthorization | None = Preauthorization.get_or_none(Preauthorization.username == username)
    now = database_time()
    if row is None or _is_invalid(row, now):
        return None
    if row.secret_digest is not None:
        secret = _find_secret(offered, row.secret_digest)
        return Match(_record(row), None if secret else HeldReason.BINDING_NOT_MET, secret)
    if row.csr_fingerprint is not None:
        # A CSR is not secret: with a copy of it, somebody else could set the user's password.
        is_met = row.csr_fingerprint == csr_fingerprint and not has_password
        return Match(_record(row), None if is_met else HeldReason.BINDING_NOT_MET)
    held_reason = None
    if row.held_reason or attempted.tried_before(username, (now - row.created_at).total_seconds()):
        held_reason = HeldReason.TRIED_BEFORE
    elif has_conflicts:
        held_reason = HeldReason.CONFLICTS
    elif _gives_http_rights(row):
        held_reason = HeldReason.HTTP_RIGHTS
    return Match(_record(row), held_reason)


def _gives_http_rights(row: Preauthorization) -> bool:
    own = any(Permission.from_fields(**fields).is_http_right for fields in row.permissions)
    return own or bool(with_http_rights(row.roles))


def names_bypassing_lock(offered: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the names whose contact over MQTT is granted or held also while the registry is locked.

    `offered` are the passwords by name. A name that is bound to something else is excluded, so that a flood of
    preauthorized names writes no more than any other flood.
    """
    now = database_time()
    return {
        row.username
        for batch in chunked(offered, _BATCH)
        for row in Preauthorization.select().where(Preauthorization.username.in_(batch))
        if not _is_invalid(row, now) and row.csr_fingerprint is None
        if row.secret_digest is None or _find_secret(offered[row.username], row.secret_digest)
    }


def secret_digests(usernames: Iterable[str]) -> dict[str, str]:
    """Return the digests of the one-time secrets that usernames are bound to."""
    is_bound = Preauthorization.secret_digest.is_null(False)
    return {
        row.username: row.secret_digest or ""
        for batch in chunked(usernames, _BATCH)
        for row in Preauthorization.select().where(Preauthorization.username.in_(batch), is_bound)
    }


def hold_attempted_names(attempted: AttemptedNames) -> None:
    """Hold new unbound preauthorizations whose usernames this process saw before they were created.

    Every process does so, because the next attempt may reach another process.
    """
    columns = (Preauthorization.id, Preauthorization.username, Preauthorization.created_at)
    unbound = Preauthorization.secret_digest.is_null() & Preauthorization.csr_fingerprint.is_null()
    with session():
        now = database_time()
        recent = (Preauthorization.created_at > now - _RECENT) & Preauthorization.held_reason.is_null()
        tried = [
            row.id
            for row in Preauthorization.select(*columns).where(recent, unbound)
            if attempted.tried_before(row.username, (now - row.created_at).total_seconds())
        ]
        for batch in chunked(tried, _BATCH):
            with transaction():
                held = {Preauthorization.held_reason: HeldReason.TRIED_BEFORE}
                Preauthorization.update(held).where(Preauthorization.id.in_(batch)).execute()


def consume(used: PreauthorizationRecord) -> Grant:
    """Delete a preauthorization inside the transaction that creates the user; return the rights that it grants."""
    if not Preauthorization.delete().where(Preauthorization.id == used.id).execute():
        raise Conflict("the preauthorization was used", "preauthorization-used")
    return Grant(existing_roles(used.roles), used.permissions)


def _is_invalid(row: Preauthorization, now: datetime) -> bool:
    return row.is_damaged or (row.expires_at is not None and row.expires_at <= now)


def _find_secret(offered: Iterable[str | None], digest: str) -> str | None:
    return next((secret for secret in offered if secret and compare_digest(digest_of(secret), digest)), None)


def _parse_line(cells: dict[str, str | None], line: int, with_secrets: bool) -> NewPreauthorization:
    if "" in cells:
        raise invalid(f"csv[{line}]", "has more fields than the first line names")
    fingerprint = cells.get("csrFingerprint") or None
    if fingerprint and not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
        raise invalid(f"csv[{line}]", "csrFingerprint must be 64 hexadecimal digits in lower case")
    return NewPreauthorization(
        username=(cells["username"] or "").strip(),
        roles=tuple((cells.get("roles") or "").split()),
        csr_fingerprint=fingerprint,
        with_secret=with_secrets and not fingerprint,
        line=line,
    )


@contextmanager
def _errors_with_line(one: NewPreauthorization) -> Iterator[None]:
    """Add the line of the CSV file to an error."""
    try:
        yield
    except InvalidInput as error:
        raise (invalid(f"csv[{one.line}]", error.errors[0].message) if one.line else error) from None
    except Conflict as error:
        raise (Conflict(f"line {one.line}: {error.message}", error.code) if one.line else error) from None


def check_rights(actor: Actor, wanted: Sequence[NewPreauthorization], found: Mapping[str, RolePolicy]) -> None:
    """Check the roles and permissions of preauthorizations; `found` are those of the roles that exist.

    Raise `InvalidInput` for a role that does not exist, and for rights over this service (http) without a binding;
    `Forbidden` if the actor lacks any of the rights.
    """
    for one in wanted:
        with _errors_with_line(one):
            for position, role in enumerate(one.roles):
                if role not in found:
                    raise invalid(f"roles[{position}]", "no such role")
    # Nobody approves the grant later, so the actor must hold the rights now.
    actor.must_hold([right for one in wanted for role in one.roles for right in found[role].rights])
    actor.must_hold([right for one in wanted for right in one.permissions])
    risky = {name for name, role in found.items() if any(right.is_http_right for right in role.rights)}
    for one in wanted:
        if one.is_bound:
            continue
        with _errors_with_line(one):
            for position, role in enumerate(one.roles):
                if role in risky:
                    raise invalid(f"roles[{position}]", _NEEDS_BINDING)
            for position, right in enumerate(one.permissions):
                if right.is_http_right:
                    raise invalid(f"permissions[{position}]", _NEEDS_BINDING)


def _check_names(wanted: list[NewPreauthorization]) -> None:
    taken: set[str] = set()
    pending: set[str] = set()
    for batch in chunked([one.username for one in wanted], _BATCH):
        expired = Preauthorization.expires_at <= database_time()
        Preauthorization.delete().where(Preauthorization.username.in_(batch), expired).execute()
        taken |= _stored_names(User, batch) | _stored_names(Preauthorization, batch)
        taken |= _stored_names(Registration, batch, Registration.status.not_in([Status.EXPIRED, Status.PENDING]))
        pending |= _stored_names(Registration, batch, Registration.status == Status.PENDING)
    for one in wanted:
        if one.username in taken or (one.username in pending and not one.is_bound):
            with _errors_with_line(one):
                message = f"{one.username} is a user, has registered, or is preauthorized already"
                raise Conflict(message, "username-taken")
        taken.add(one.username)


def _tried_names(usernames: Iterable[str]) -> set[str]:
    """Return the usernames whose registration expired, or was deleted within `_ATTEMPTS_KEPT`."""
    tried: set[str] = set()
    since = database_time() - _ATTEMPTS_KEPT
    for batch in chunked(usernames, _BATCH):
        tried |= _stored_names(Registration, batch, Registration.status == Status.EXPIRED)
        targets = audit.targets_of("registration.delete", [f"registration:{name}" for name in batch], since)
        tried |= {target.removeprefix("registration:") for target in targets}
    return tried


def _stored_names(model: Any, names: Iterable[str], *conditions: Any) -> set[str]:
    return {name for (name,) in model.select(model.username).where(model.username.in_(names), *conditions).tuples()}


def _row(actor: Actor, new: NewPreauthorization, now: datetime, digest: str | None, tried: bool) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex,
        "username": new.username,
        "skeleton": skeleton(new.username),
        "roles": list(new.roles),
        "permissions": [each.fields() for each in new.permissions],
        "csr_fingerprint": new.csr_fingerprint,
        "expires_at": new.expires_at,
        "created_by": actor.username,
        "created_at": now,
        "secret_digest": digest,
        "held_reason": HeldReason.TRIED_BEFORE if tried else None,
    }


def _event(row: dict[str, Any]) -> tuple[str, None, audit.Fields]:
    stored = {to_camel(name): row[name] for name in ("roles", "permissions", "csr_fingerprint")}
    return f"preauthorization:{row['username']}", None, stored | {"withSecret": row["secret_digest"] is not None}


def _record(row: Preauthorization) -> PreauthorizationRecord:
    permissions = tuple(Permission.from_fields(**fields) for fields in row.permissions)
    with_secret = row.secret_digest is not None
    return from_row(
        PreauthorizationRecord,
        row,
        roles=tuple(row.roles),
        permissions=permissions,
        with_secret=with_secret,
        line=None,
    )
