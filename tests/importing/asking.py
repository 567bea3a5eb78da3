"""Asks a broker for everything that clients can ask for, and returns its answers."""

from __future__ import annotations

import base64
import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from authsvc.importing.notes import DOLLAR_TOPICS, Note, NoteKind, Question
from authsvc.policy import topics
from authsvc.policy.topics import Identity
from tests.devices import FIRST_FAILURE, V5, Device

if TYPE_CHECKING:
    from collections.abc import Iterable

PUBLISHER = "publisher"
"""A user that may publish everything; its messages show what is delivered to whom."""


def password_of(username: str) -> str:
    return f"password of {username}"


def pbkdf2(username: str, iterations: int = 101) -> tuple[str, str]:
    """Return salt and hash of a user's password in Base64, as Mosquitto writes them."""
    salt = hashlib.sha256(username.encode()).digest()[:12]
    digest = hashlib.pbkdf2_hmac("sha512", password_of(username).encode(), salt, iterations)
    return base64.b64encode(salt).decode(), base64.b64encode(digest).decode()


class Asked(NamedTuple):
    """One question: `topic` is a topic or topic filter, empty for a CONNECT."""

    username: str
    client_id: str
    question: Question
    topic: str = ""


@dataclass(frozen=True)
class Questions:
    """All questions to a broker: each of these clients (username and client id) asks for each topic and filter."""

    clients: tuple[tuple[str, str], ...]
    topics: tuple[str, ...]
    filters: tuple[str, ...]

    def ask(self, port: int) -> dict[Asked, bool]:
        """Return the answers of the broker that listens at this port."""
        answers: dict[Asked, bool] = {}
        with ExitStack() as running:
            publisher = _device(PUBLISHER, "publisher-id")
            running.callback(publisher.stop)
            publisher.start(port)
            assert publisher.connack() == 0
            for username, client_id in self.clients:
                device = _device(username, client_id)
                running.callback(device.stop)
                device.start(port)
                connected = device.connack() == 0
                answers[Asked(username, client_id, Question.CONNECT)] = connected
                if connected:
                    answers |= self._of(device, publisher)
                    device.stop()
        return answers

    def _of(self, device: Device, publisher: Device) -> dict[Asked, bool]:
        def asked(question: Question, topic: str) -> Asked:
            return Asked(device.username, device.client_id, question, topic)

        answers = {asked(Question.PUBLISH, topic): device.publish(topic) == 0 for topic in self.topics}
        # All that the client can get a subscription for, so that only the rules about delivery are left.
        wanted = tuple(dict.fromkeys((*self.filters, *self.topics)))
        codes = [code for topic in wanted for code in device.subscribe(topic)]
        answers |= {
            asked(Question.SUBSCRIBE, topic): code < FIRST_FAILURE for topic, code in zip(wanted, codes, strict=True)
        }
        for topic in self.topics:
            publisher.publish(topic, topic)
        received = {payload.decode() for _, payload in device.received_so_far()}
        return answers | {asked(Question.RECEIVE, topic): topic in received for topic in self.topics}


def differences(theirs: dict[Asked, bool], ours: dict[Asked, bool]) -> list[tuple[Asked, bool]]:
    """Return the questions that are answered differently, each with the answer of the other system.

    Of a client that only one of them lets in, that is the only difference.
    """
    return [(asked, answer) for asked, answer in theirs.items() if asked in ours and ours[asked] != answer]


def announced(asked: Asked, notes: Iterable[Note]) -> bool:
    """Return whether a note says that this question is answered differently."""
    return any(
        note.kind is NoteKind.DIFFERS
        and (not note.users or asked.username in note.users)
        and note.question in (None, asked.question)
        and _is_about(note.topic_filter, asked)
        for note in notes
    )


def _is_about(topic_filter: str | None, asked: Asked) -> bool:
    if topic_filter is None:
        return True
    if topic_filter == DOLLAR_TOPICS:
        return asked.topic.startswith("$")
    identity = Identity(asked.username, asked.client_id)
    return topics.levels_cover(topics.split(topic_filter), topics.split(asked.topic), identity)


def _device(username: str, client_id: str) -> Device:
    return Device(username, password_of(username), client_id, V5)
