"""A Mosquitto with its own files, or with dynamic-security, for comparison with authsvc after an import."""

from __future__ import annotations

import json
import random
from itertools import chain
from typing import TYPE_CHECKING, Any

from tests.broker import Mosquitto, free_port
from tests.importing.asking import PUBLISHER, Questions, pbkdf2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DYNAMIC_SECURITY = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"
AT_ONCE = "max_inflight_messages 0\n"
"""Lets the broker send all messages at once, so that those sent before an UNSUBACK arrive before it."""
_COMMON = f"allow_anonymous false\npersistence false\ncheck_retain_source true\n{AT_ONCE}"

_LEVELS = ("a", "b", "c")

FILES_ACL = """\
# Rules for anonymous clients.
topic read news/#

user publisher
topic write #
topic write $dev/#

user press-7
topic readwrite line/7/#
topic deny line/7/secret
topic read line/+/state

user press-8
topic write line/8/alarm
topic read line/8/#
topic readwrite line/8/a b
topic deny line/8/alarm/test

user oven-1
topic read #
topic read $dev/#

user by-certificate
topic read line/#

pattern readwrite devices/%u/#
pattern read clients/%c/in
pattern deny devices/+/locked
pattern deny line/7/stop
pattern read devices/%u/x%u
"""


def files_passwords(usernames: Sequence[str]) -> str:
    """Return a password_file in which the hashes have the forms `$6$` and `$7$` of Mosquitto."""
    lines = []
    for username in usernames:
        salt, digest = pbkdf2(username)
        lines.append(f"{username}:$7$101${salt}${digest}\n")
    return "".join(lines)


FILES_QUESTIONS = Questions(
    (
        ("press-7", "press-7"),
        ("press-8", "any-id"),
        ("oven-1", "oven-1"),
        ("oven-2", "oven-2"),
        ("nobody-here", "x"),
    ),
    (
        *("news/today", "line/7/state", "line/7/secret", "line/7/secret/x", "line/7/stop", "line/7", "line/8/state"),
        *("line/8/alarm", "line/8/alarm/test", "line/8/a b", "line/9/state", "devices/press-7/x", "devices/press-8/x"),
        *("devices/press-7/locked", "devices/oven-1/locked", "devices/press-7", "clients/press-7/in", "$dev/x"),
        *("clients/any-id/in", "clients/oven-2/in", "clients/oven-2/in/x", "a//b", "/a", "devices/press-7/xpress-7"),
    ),
    (
        *("#", "+", "line/#", "line/+", "line/+/state", "line/7/#", "line/7/+", "devices/press-7/#", "devices/+/x"),
        *("devices/#", "clients/+/in", "+/7/state", "$dev/#", "line/8/#", "line/8/+/#", "$share/g/line/7/#"),
    ),
)


def mosquitto_with_files(directory: Path, passwords: str, acl: str) -> Mosquitto:
    """Return a broker, not started, that decides by these files."""
    (directory / "passwords").write_text(passwords)
    (directory / "acl").write_text(acl)
    config = f"listener {free_port()} 127.0.0.1\n{_COMMON}"
    return Mosquitto(f"{config}password_file {directory}/passwords\nacl_file {directory}/acl\n", directory)


def mosquitto_with_dynsec(directory: Path, config: dict[str, Any]) -> Mosquitto:
    """Return a broker, not started, with the dynamic-security plugin and this file."""
    (directory / "dynsec.json").write_text(json.dumps(config))
    lines = f"plugin {DYNAMIC_SECURITY}\nplugin_opt_config_file {directory}/dynsec.json\n"
    return Mosquitto(f"listener {free_port()} 127.0.0.1\n{_COMMON}{lines}", directory)


def client(username: str, *roles: str, **fields: Any) -> dict[str, Any]:
    """Return a client of dynamic-security; the roles are spelled `name` or `name:priority`."""
    salt, digest = pbkdf2(username)
    return {
        "username": username,
        "password": digest,
        "salt": salt,
        "iterations": 101,
        "roles": [_ranked(role) for role in roles],
        **fields,
    }


def role(name: str, *acls: str, **fields: Any) -> dict[str, Any]:
    """Return a role of dynamic-security; its rules are spelled `allow publishClientSend a/# 5`."""
    return {"rolename": name, "acls": [_acl(acl) for acl in acls], **fields}


def group(name: str, roles: Sequence[str], clients: dict[str, int]) -> dict[str, Any]:
    """Return a group of dynamic-security with its clients and their priorities."""
    members = [{"username": username, "priority": priority} for username, priority in clients.items()]
    return {"groupname": name, "roles": [_ranked(role) for role in roles], "clients": members}


def defaults(*allowed: str) -> dict[str, bool]:
    """Return `defaultACLAccess` in which these types are allowed."""
    return {name: name in allowed for name in ("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe")}


def _ranked(text: str) -> dict[str, Any]:
    name, _, priority = text.partition(":")
    return {"rolename": name, "priority": int(priority)} if priority else {"rolename": name}


def _acl(text: str) -> dict[str, Any]:
    effect, kind, topic, *priority = text.split(" ")
    return {"acltype": kind, "topic": topic, "allow": effect == "allow", "priority": int(*priority) if priority else 0}


PUBLISHING = (
    client(PUBLISHER, "publishes"),
    role("publishes", "allow publishClientSend # 0", "allow publishClientSend $dev/# 0"),
)
"""The client and role that `Questions` needs."""

DYNSEC = {
    "defaultACLAccess": defaults("publishClientReceive", "unsubscribe"),
    "clients": [
        PUBLISHING[0],
        client("press-7", "press", "line-reader:-5"),
        client("press-8", "press:5", "no-alarms:10"),
        client("press-9", "no-alarms:0", "press:10"),
        client("oven-1", "oven", clientid="oven-1-id"),
        client("oven-2", "oven", disabled=True),
        client("display", "ends-with-deny", "no-wildcards"),
        client("literal", "literals"),
        client("grouped"),
        client("own-name", "own"),
    ],
    "groups": [
        group("night", ["no-alarms:3", "line-reader:1"], {"grouped": 1, "press-7": 3}),
        group("day", ["press"], {"grouped": 7}),
    ],
    "roles": [
        PUBLISHING[1],
        role(
            "press",
            "allow publishClientSend line/+/state 0",
            "allow publishClientSend line/alarms/# 0",
            "allow subscribePattern line/# 0",
            "allow subscribePattern $dev/# 0",
        ),
        role(
            "no-alarms",
            "deny publishClientSend line/alarms/# 0",
            "deny publishClientSend line/9/# 1",
            "deny subscribePattern line/alarms/# 0",
            "deny publishClientReceive line/+/secret 0",
        ),
        role("line-reader", "allow subscribePattern line/+/state 0", "allow subscribeLiteral news/today 0"),
        role(
            "oven",
            "deny publishClientSend oven/+/locked 5",
            "allow publishClientSend oven/# 3",
            "deny publishClientSend oven/1/x 1",
            "deny publishClientSend # -1",
            "allow subscribePattern # 0",
            "deny subscribeLiteral # 5",
        ),
        role("ends-with-deny", "allow publishClientSend a/b 5", "deny publishClientSend # 0"),
        role("no-wildcards", "allow subscribePattern a/# 0", "allow publishClientSend a/c 0", allowwildcardsubs=False),
        role(
            "literals", "allow subscribeLiteral a/+/c 0", "deny subscribeLiteral a/b/c 5", "allow subscribeLiteral b 0"
        ),
        role("own", "allow publishClientSend devices/%u/# 0", "allow subscribePattern devices/%u/# 0"),
    ],
}
DYNSEC_QUESTIONS = Questions(
    (
        *((name, name) for name in ("press-7", "press-8", "press-9", "display", "literal", "grouped", "own-name")),
        *(("oven-1", "oven-1-id"), ("oven-1", "another-id"), ("oven-2", "x"), ("nobody-here", "y")),
    ),
    (
        *("line/1/state", "line/9/state", "line/alarms/state", "line/alarms", "line/alarms/1", "line/1/secret", "line"),
        *("oven/1/locked", "oven/1/x", "oven/1/y", "oven", "a/b", "a/c", "a", "a/b/c", "a/x/c", "b", "news/today"),
        *("$dev/x", "devices/own-name/x", "devices/other/x", "x//y"),
    ),
    (
        *("#", "+/#", "line/#", "line/+", "line/+/state", "line/alarms/#", "line/+/secret", "a/#", "a/+", "a/+/c", "b"),
        *("a/b/#", "oven/#", "news/+", "$dev/#", "devices/own-name/#", "devices/%u/#", "+/1/state"),
        *("$share/g/line/#", "$share/g/a/c"),
    ),
)


def generated_dynsec(seed: int, default: dict[str, bool]) -> tuple[dict[str, Any], Questions]:
    """Return a random file with 12 clients, 16 roles and 3 groups over few topics, and what to ask about it."""
    chance = random.Random(seed)
    kinds = ("publishClientSend", "subscribePattern", "subscribeLiteral", "publishClientReceive")

    def topic_filter() -> str:
        levels = [chance.choice((*_LEVELS, "+")) for _ in range(chance.randint(1, 3))]
        return "/".join([*levels, "#"] if chance.random() < 0.3 else levels) if chance.random() < 0.95 else "#"

    def acl() -> str:
        effect = "deny" if chance.random() < 0.35 else "allow"
        return f"{effect} {chance.choices(kinds, (4, 4, 1, 2))[0]} {topic_filter()} {chance.randint(-2, 2)}"

    names = [f"role-{number}" for number in range(16)]
    usernames = [f"client-{number}" for number in range(12)]

    def some_roles() -> list[str]:
        return [f"{name}:{chance.randint(-2, 2)}" for name in chance.sample(names, chance.randint(0, 3))]

    config: dict[str, Any] = {
        "defaultACLAccess": default,
        "clients": [PUBLISHING[0], *(client(username, *some_roles()) for username in usernames)],
        "groups": [
            group(name, some_roles(), {each: chance.randint(-2, 2) for each in chance.sample(usernames, 4)})
            for name in ("group-1", "group-2", "group-3")
        ],
        "roles": [
            PUBLISHING[1],
            *(
                role(name, *(acl() for _ in range(chance.randint(1, 6))), allowwildcardsubs=chance.random() < 0.9)
                for name in names
            ),
        ],
    }
    filters = {topic_filter() for _ in range(15)} | {
        acl["topic"] for each in config["roles"][1:] for acl in each["acls"]
    }
    topics = {"/".join(chance.choice((*_LEVELS, "d")) for _ in range(length)) for length in (1, 2, 2, 3, 3, 3, 4) * 4}
    return config, Questions(tuple((each, each) for each in usernames), tuple(sorted(topics)), tuple(sorted(filters)))


def generated_files(seed: int) -> tuple[str, str, Questions]:
    """Return a random password_file and acl_file with 12 users over few topics, and what to ask about them."""
    chance = random.Random(seed)
    usernames = [f"user-{number}" for number in range(12)]

    def line(word: str, levels: Sequence[str]) -> str:
        chosen = [chance.choice(levels) for _ in range(chance.randint(1, 3))]
        access = chance.choice(("read ", "write ", "readwrite ", "deny ", ""))
        return f"{word} {access}{'/'.join([*chosen, '#'] if chance.random() < 0.3 else chosen)}\n"

    acl = [f"user {PUBLISHER}\ntopic write #\n"]
    for username in usernames:
        acl.append(f"user {username}\n")
        acl += [line("topic", (*_LEVELS, "+")) for _ in range(chance.randint(0, 5))]
    acl += [line("pattern", (*_LEVELS, "+", "%u", "%c")) for _ in range(6)]
    named = (*_LEVELS, "d", *usernames[:2])
    topics = {"/".join(chance.choice(named) for _ in range(length)) for length in (1, 2, 2, 3, 3) * 7}
    asked = Questions(tuple((each, each) for each in usernames), tuple(sorted(topics)), ("#", "a/#", "+/b"))
    return files_passwords([PUBLISHER, *usernames]), "".join(chain(acl)), asked
