"""After an import authsvc answers as Mosquitto did, but for the differences that the import has announced.

A real Mosquitto with its files, or with dynamic-security, and one with authsvc's plugin are asked the same questions.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from authsvc.importing import dynsec, mosquitto
from authsvc.importing.notes import NoteKind, Question
from authsvc.policy import topics
from tests.broker import Mosquitto, authsvc_plugin_config, build_authsvc_plugin, free_port
from tests.http.wire import logs_in, within
from tests.importing import systems
from tests.importing.asking import PUBLISHER, Asked, Questions, announced, differences, password_of
from tests.service import Service

if TYPE_CHECKING:
    from pathlib import Path

    from authsvc.importing.notes import Note

pytestmark = pytest.mark.slow

FILES_USERS = (PUBLISHER, "press-7", "press-8", "oven-1", "oven-2")
USUAL = systems.defaults("publishClientReceive", "unsubscribe")
OPEN = systems.defaults("publishClientSend", "publishClientReceive", "subscribe")
CLOSED = systems.defaults("unsubscribe")


def compared(
    theirs: Mosquitto, arguments: tuple[str, ...], questions: Questions, directory: Path
) -> list[tuple[Asked, bool]]:
    """Import, ask both, and return the questions that are answered differently with the other system's answer."""
    with theirs:
        before = questions.ask(theirs.port)
    own = directory / "authsvc"
    own.mkdir()
    # Each client logs in a few times within a minute, and some are refused.
    with Service(own, {"AUTHSVC_WRONG_PASSWORDS_PER_MINUTE": "1000"}) as service:
        done = service.command("import", *arguments)
        assert done.returncode == 0, done.stderr
        # A command does not wait until the service has read what it wrote.
        assert within(10, lambda: logs_in(service, PUBLISHER, password_of(PUBLISHER)) == "ok")
        config = authsvc_plugin_config(
            plugin=build_authsvc_plugin(),
            service_port=service.broker_port,
            listener_port=free_port(),
            extra=systems.AT_ONCE,
        )
        with Mosquitto(config, own) as ours:
            after = questions.ask(ours.port)
    assert len(before) > 150
    assert {asked for asked in before if asked.question is Question.CONNECT} <= after.keys()
    return differences(before, after)


def not_announced(found: list[tuple[Asked, bool]], notes: list[Note]) -> list[tuple[Asked, bool]]:
    return [(asked, answer) for asked, answer in found if not announced(asked, notes)]


def from_files(directory: Path, passwords: str, acl: str, questions: Questions) -> list[tuple[Asked, bool]]:
    broker = systems.mosquitto_with_files(directory, passwords, acl)
    arguments = ("mosquitto", "--passwords", f"{directory}/passwords", "--acl", f"{directory}/acl")
    return compared(broker, arguments, questions, directory)


def from_dynsec(directory: Path, config: dict[str, Any], questions: Questions) -> list[tuple[Asked, bool]]:
    broker = systems.mosquitto_with_dynsec(directory, config)
    return compared(broker, ("dynsec", f"{directory}/dynsec.json"), questions, directory)


def test_same_answers_as_with_password_file_and_acl_file(tmp_path: Path) -> None:
    passwords = systems.files_passwords(FILES_USERS)
    notes = mosquitto.read(passwords.encode(), systems.FILES_ACL.encode()).notes
    found = from_files(tmp_path, passwords, systems.FILES_ACL, systems.FILES_QUESTIONS)
    assert not not_announced(found, notes)
    # Besides SUBSCRIBE, which Mosquitto always accepts, only rules that are asked before a pattern differ.
    others = {(asked.username, asked.question, asked.topic) for asked, _ in found}
    assert {each for each in others if each[1] is not Question.SUBSCRIBE} == {
        ("press-7", Question.PUBLISH, "line/7/stop"),
        ("press-7", Question.RECEIVE, "line/7/stop"),
        ("oven-1", Question.RECEIVE, "line/7/stop"),
        ("oven-1", Question.RECEIVE, "devices/press-7/locked"),
        ("oven-1", Question.RECEIVE, "devices/oven-1/locked"),
    }


def test_same_answers_as_with_dynamic_security(tmp_path: Path) -> None:
    notes = dynsec.read(json.dumps(systems.DYNSEC).encode()).notes
    found = from_dynsec(tmp_path, systems.DYNSEC, systems.DYNSEC_QUESTIONS)
    assert not not_announced(found, notes)


def test_each_announced_difference_of_rules_is_one(tmp_path: Path) -> None:
    # Asked for with the topics of the notes themselves, so that no note is a false alarm.
    notes = [
        note
        for note in dynsec.read(json.dumps(systems.DYNSEC).encode()).notes
        # Mosquitto 2.0.11 ignores allowwildcardsubs.
        if note.kind is NoteKind.DIFFERS and note.users and "allowwildcardsubs" not in note.message
    ]
    assert len(notes) > 10
    filters = {note.topic_filter for note in notes if note.topic_filter}
    examples = {
        "/".join(topic) for each in filters for topic in topics.typical_topics(topics.split(each), "any", 4) if topic
    }
    clients = tuple((name, "oven-1-id" if name == "oven-1" else name) for name in {note.users[0] for note in notes})
    found = from_dynsec(tmp_path, systems.DYNSEC, Questions(clients, tuple(sorted(examples)), tuple(sorted(filters))))
    differing = [asked for asked, _ in found]
    assert not [note for note in notes if not any(announced(asked, [note]) for asked in differing)]


@pytest.mark.parametrize("seed", [1, 2])
def test_same_answers_as_with_random_files(tmp_path: Path, seed: int) -> None:
    passwords, acl, questions = systems.generated_files(seed)
    notes = mosquitto.read(passwords.encode(), acl.encode()).notes
    assert not not_announced(from_files(tmp_path, passwords, acl, questions), notes)


@pytest.mark.parametrize(("seed", "default"), [(1, USUAL), (2, USUAL), (3, OPEN), (4, CLOSED)])
def test_same_answers_as_with_a_random_dynamic_security_file(
    tmp_path: Path, seed: int, default: dict[str, bool]
) -> None:
    config, questions = systems.generated_dynsec(seed, default)
    notes = dynsec.read(json.dumps(config).encode()).notes
    assert not not_announced(from_dynsec(tmp_path, config, questions), notes)
