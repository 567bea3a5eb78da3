"""The statuses of a registration, and the events that lead from one to the next."""

from __future__ import annotations

from enum import StrEnum

from authsvc.errors import Conflict


class Status(StrEnum):
    PENDING = "pending"
    GRANTED = "granted"
    DENIED = "denied"
    EXPIRED = "expired"


class HeldReason(StrEnum):
    """Why a preauthorized username still needs an administrator's approval."""

    TRIED_BEFORE = "tried-before"  # somebody tried the name before it was preauthorized: it may be another device
    CONFLICTS = "conflicts"  # the first contact came with several passwords
    BINDING_NOT_MET = "binding-not-met"  # the contact lacks the secret or key that the name is bound to
    HTTP_RIGHTS = "http-rights"  # its roles have gained rights over this service, and it has no binding


class Event(StrEnum):
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
    # An expired registration does not block the name: the next contact is a new registration.
    (Status.EXPIRED, Event.CONTACT): Status.PENDING,
}


def next_status(status: Status, event: Event) -> Status:
    """Return the status after an event; raise `Conflict` for a transition that is not in the table.

    Deletion is possible in every status, so it is not in the table.
    """
    if (status, event) not in _NEXT:
        raise Conflict(f"the registration is {status}, so {event} is not possible", f"registration-{status}")
    return _NEXT[status, event]
