"""What a preauthorization means for one contact: let in at once, held for an administrator, or none of its business."""

from __future__ import annotations

from datetime import timedelta
from hmac import compare_digest
from typing import TYPE_CHECKING, NamedTuple

from peewee import chunked

from authsvc.accounts import roles
from authsvc.errors import Conflict
from authsvc.record_json import json_value
from authsvc.storage.database import database_time, session, transaction
from authsvc.storage.policy_reader import permission
from registry.decisions import Grant, existing_roles
from registry.enrolment_keys import digest_of
from registry.models import Preauthorization
from registry.preauthorizations import record_of
from registry.records import Start
from registry.states import HeldReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from registry.mqtt_registration.attempted_names import AttemptedNames
    from registry.preauthorizations import PreauthorizationRecord

_BATCH = 200
# Long enough for every process to look at a new preauthorization more than once.
_RECENT = timedelta(seconds=5)


class Match(NamedTuple):
    """A grant in advance as it applies to one contact: `held` says why that is not let in at once; None if it is.

    `secret` is the one that the contact proved to have.
    """

    record: PreauthorizationRecord
    held: HeldReason | None
    secret: str | None = None

    @property
    def admits(self) -> bool:
        """Whether nobody needs to decide any more."""
        return self.held is None

    @property
    def proves_holder(self) -> bool:
        """Whether the contact has what the grant in advance is bound to, so that it comes before any other."""
        return self.held is None and self.record.advance.is_bound

    @property
    def opens(self) -> bool:
        """Whether the contact is recorded even while the registry is locked."""
        return self.held is not HeldReason.BINDING_NOT_MET

    @property
    def start(self) -> Start:
        """What a contact that is held starts with once somebody grants it."""
        if not self.opens:
            return Start(held=self.held)
        given = self.record.advance
        return Start(existing_roles(given.roles), tuple(json_value(given.permissions)), self.held)


def match(
    username: str,
    csr_fingerprint: str | None,
    offered: Iterable[str | None],
    attempted: AttemptedNames,
    *,
    has_password: bool = False,
    has_conflicts: bool = False,
) -> Match | None:
    """Return the preauthorization of this name, if there is one, as it applies to a contact with this key or secrets.

    `attempted` are the names that this process has seen tried.
    """
    row: Preauthorization | None = Preauthorization.get_or_none(Preauthorization.username == username)
    now = database_time()
    if row is None or _is_void(row, now):
        return None
    if row.secret_digest is not None:
        secret = _secret_among(offered, row.secret_digest)
        return Match(record_of(row), None if secret else HeldReason.BINDING_NOT_MET, secret)
    if row.csr_fingerprint is not None:
        # A signing request is not secret: with a copy of one, somebody else could set the user's password.
        proved = row.csr_fingerprint == csr_fingerprint and not has_password
        return Match(record_of(row), None if proved else HeldReason.BINDING_NOT_MET)
    tried = attempted.tried_before(username, (now - row.created_at).total_seconds())
    return Match(record_of(row), _unbound_held(row, tried=tried, has_conflicts=has_conflicts))


def opened_names(offered: Mapping[str, Iterable[str]]) -> set[str]:
    """Return those of the names whose contact without a key is let in, or held, also while the registry is locked.

    `offered` are the secrets by name. A name that is bound to something else is not among them, so that a flood of
    preauthorized names writes no more than any other flood.
    """
    now = database_time()
    return {
        row.username
        for batch in chunked(offered, _BATCH)
        for row in Preauthorization.select().where(Preauthorization.username.in_(batch))
        if not _is_void(row, now) and row.csr_fingerprint is None
        if row.secret_digest is None or _secret_among(offered[row.username], row.secret_digest)
    }


def secret_digests(usernames: Iterable[str]) -> dict[str, str]:
    """Return the digests of the one-time secrets that names are bound to."""
    is_bound = Preauthorization.secret_digest.is_null(False)
    return {
        row.username: row.secret_digest or ""
        for batch in chunked(usernames, _BATCH)
        for row in Preauthorization.select().where(Preauthorization.username.in_(batch), is_bound)
    }


def _is_void(row: Preauthorization, now: datetime) -> bool:
    return row.is_damaged or (row.expires_at is not None and row.expires_at <= now)


def _secret_among(offered: Iterable[str | None], digest: str) -> str | None:
    return next((each for each in offered if each and compare_digest(digest_of(each), digest)), None)


def _unbound_held(row: Preauthorization, *, tried: bool, has_conflicts: bool) -> HeldReason | None:
    if row.held_reason or tried:
        return HeldReason.TRIED_BEFORE
    if has_conflicts:
        return HeldReason.CONFLICTS
    by_itself = any(permission(**words).is_http_right for words in row.permissions)
    return HeldReason.HTTP_RIGHTS if by_itself or roles.with_http_rights(row.roles) else None


def hold_attempted(attempted: AttemptedNames) -> None:
    """Hold new grants in advance that are bound to nothing and whose names this process has seen tried earlier.

    Every process does so, since the next attempt under the name may come to another one.
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


def use(found: PreauthorizationRecord) -> Grant:
    """Use one up, inside the transaction that makes the user, and return what it grants."""
    if not Preauthorization.delete().where(Preauthorization.id == found.id).execute():
        raise Conflict("the preauthorization was used", "preauthorization-used")
    return Grant(existing_roles(found.advance.roles), found.advance.permissions)
