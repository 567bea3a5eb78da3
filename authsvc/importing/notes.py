"""What an import could not take over, and where the other system decides differently."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class NoteKind(StrEnum):
    """Whether something is missing after the import, is decided differently, or needs an administrator's attention."""

    LEFT_OUT = "leftOut"
    DIFFERS = "differs"
    ATTENTION = "attention"


class Question(StrEnum):
    """What a client asks a broker for."""

    CONNECT = "connect"
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"


MAX_SHOWN_USERS = 20
"""The number of usernames in the JSON of a note."""
DOLLAR_TOPICS = "$"
"""Stands in `Note.topic_filter` for all topics that begin with $."""


@dataclass(frozen=True, slots=True)
class Note:
    """One finding of an import. No note repeats a password or hash.

    `place` is a line, as in `acl_file line 12`, or a JSON path, as in `roles[3].acls[0]`; it is empty for a finding
    about the whole import. `users` are those concerned, all imported users if it is empty. A note of the kind `differs`
    says which `question` is answered differently, and for which topics or topic filters: those that `topic_filter`
    covers, in which %u and %c stand for the username and client id, and all if it is None.
    """

    kind: NoteKind
    place: str
    message: str
    users: tuple[str, ...] = ()
    question: Question | None = None
    topic_filter: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return the JSON, with the first usernames and the number of all."""
        return {
            "kind": self.kind.value,
            "place": self.place,
            "message": self.message,
            "question": self.question and self.question.value,
            "topicFilter": self.topic_filter,
            "users": list(self.users[:MAX_SHOWN_USERS]),
            "userCount": len(self.users),
        }


def left_out(place: str, message: str, *users: str) -> Note:
    return Note(NoteKind.LEFT_OUT, place, message, users)


def attention(place: str, message: str, *users: str) -> Note:
    return Note(NoteKind.ATTENTION, place, message, users)
