"""The life of a registration: which event may follow which status, and nothing besides."""

from __future__ import annotations

from enum import StrEnum

from authsvc.errors import Conflict


class Status(StrEnum):
    """Where a registration stands."""

    PENDING = "pending"
    GRANTED = "granted"
    DENIED = "denied"
    EXPIRED = "expired"


class HeldReason(StrEnum):
    """Why a preauthorized name waits for an administrator after all."""

    TRIED_BEFORE = "tried-before"  # somebody tried the name before it was preauthorized, and may not be the one meant
    CONFLICTS = "conflicts"  # the first contact came with several passwords
    BINDING_NOT_MET = "binding-not-met"  # it is bound to a secret or key that this contact did not have
    HTTP_RIGHTS = "http-rights"  # its roles give rights over this service by now, and it is bound to nothing


class Event(StrEnum):
    """What can happen to one: its holder makes contact, an administrator decides, or time runs out."""

    CONTACT = "contact"
    GRANT = "grant"
    DENY = "deny"
    EXPIRE = "expire"


_NEXT: dict[tuple[Status, Event], Status] = {
    (Status.PENDING, Event.CONTACT): Status.PENDING,
    (Status.PENDING, Event.GRANT): Status.GRANTED,
    (Status.PENDING, Event.DENY): Status.DENIED,
    (Status.PENDING, Event.EXPIRE): Status.EXPIRED,
    (Status.GRANTED, Event.CONTACT): Status.GRANTED,
    (Status.DENIED, Event.CONTACT): Status.DENIED,
    # Asking again after nobody answered is a new request.
    (Status.EXPIRED, Event.CONTACT): Status.PENDING,
}


def after(status: Status, event: Event) -> Status:
    """Return the status that follows; `Conflict` for every step that is not in the table.

    Deleting is no step but an end: it is possible in every status and forgets the registration.
    """
    try:
        return _NEXT[status, event]
    except KeyError:
        raise Conflict(
            f"the registration is {status} and cannot be changed that way", f"registration-{status}"
        ) from None
