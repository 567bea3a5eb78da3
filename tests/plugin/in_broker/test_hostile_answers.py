"""Answers that no service should give: they deny, and the broker and its other clients go on."""

from __future__ import annotations

import contextlib
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from tests.broker import free_port
from tests.devices import NOT_AUTHORIZED
from tests.plugin.fake_service import wait_for
from tests.plugin.in_broker.pki import Authority
from tests.plugin.in_broker.site import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.plugin.in_broker.build import Build

    Answer = Callable[[BinaryIO], None]

pytestmark = pytest.mark.slow

LOGIN, USERS = "/auth/user", "/auth/plugin/users"
STREAM, REPORT = "/auth/plugin/changes", "/auth/plugin/report"
OK = b"HTTP/1.1 200 OK\r\n"
RECOVERY = 15.0  # seconds, in which a broker under sanitizers has read 64 MB as well
MOST_MEMORY = 600 * 1024 * 1024
GOOD: dict[str, Any] = {
    "username": "USER",
    "version": 1,
    "refused": None,
    "credentials": {"p:secret": None},
    "clientIds": [],
    "rules": ["readWrite #"],
    "roles": [],
}


def body(data: bytes, status: bytes = OK) -> Answer:
    return lambda to: write(to, status + b"Content-Length: %d\r\n\r\n" % len(data) + data)


def raw(data: bytes) -> Answer:
    return lambda to: write(to, data)


def write(to: BinaryIO, data: bytes) -> None:
    with contextlib.suppress(OSError):
        to.write(data)
        to.flush()


def endless(part: bytes, begin: bytes = b"") -> Answer:
    """Send the same part until the other end has had enough."""

    def answer(to: BinaryIO) -> None:
        with contextlib.suppress(OSError):
            to.write(OK + b"\r\n" + begin)
            to.writelines(part * (65536 // len(part)) for _ in range(4096))

    return answer


def slow(data: bytes) -> Answer:
    """Send a byte every 50 ms."""

    def answer(to: BinaryIO) -> None:
        with contextlib.suppress(OSError):
            for at in range(len(data)):
                to.write(data[at : at + 1])
                to.flush()
                time.sleep(0.05)

    return answer


def silent(to: BinaryIO) -> None:
    """Never answer."""
    time.sleep(RECOVERY)


HTTP: dict[str, Answer] = {
    "nothing": raw(b""),
    "no-http": raw(b"\x00\xff\x00\xff" * 100),
    "empty": body(b""),
    "text": body(b"<html>hello</html>"),
    "null": body(b"null"),
    "number": body(b"1e999"),
    "string": body(b'"ok"'),
    "list": body(b"[]"),
    "object": body(b"{}"),
    "not-utf-8": body(b'{"ok":"\xff\xfe"}\n'),
    "nul": body(b'{"o\x00k":true}\n'),
    "cut": body(b'{"ok":true,"user":{"username":"'),
    "shorter-than-announced": raw(OK + b"Content-Length: 500000000\r\n\r\n{}"),
    "negative-length": raw(OK + b"Content-Length: -1\r\n\r\n{}"),
    "broken-chunks": raw(OK + b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n{}\r\n"),
    "huge-chunk": raw(OK + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFF\r\n{}"),
    "redirect": raw(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
    "100-continue": raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "compressed": raw(OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"),
    "long-header": raw(OK + b"X: " + b"x" * 500_000 + b"\r\n\r\n"),
    "many-headers": raw(OK + b"X: y\r\n" * 50_000 + b"\r\n"),
    "deep-list": body(b"[" * 2_000_000),
    "deep-object": body(b'{"user":' * 500_000),
    "500": body(b'{"ok":true}', b"HTTP/1.1 500 Oops\r\n"),
    "201": body(b'{"ok":true}', b"HTTP/1.1 201 Created\r\n"),
    "endless-spaces": endless(b" "),
    "endless-zeros": endless(b"0,", b'{"ok":true,"user":['),
    "endless-string": endless(b"x", b'{"ok":true,"error":"'),
    "endless-objects": endless(b'{"a":[{}]},', b"["),
}
SLOW: dict[str, Answer] = {"slow": slow(OK + b"Content-Length: 1000\r\n\r\n" + b" " * 1000), "silent": silent}


def changed(**fields: Any) -> dict[str, Any]:
    return GOOD | fields


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


STATES: dict[str, Any] = {
    "null": None,
    "list": [GOOD],
    "string": "USER",
    **{f"no-{name}": without(name) for name in GOOD},
    **{f"{name}-is-number": changed(**{name: 7}) for name in GOOD if name != "version"},
    **{f"{name}-is-true": changed(**{name: True}) for name in GOOD},
    **{f"{name}-is-object-of-objects": changed(**{name: {"a": {"b": {}}}}) for name in GOOD},
    **{f"{name}-is-list-of-lists": changed(**{name: [[[]]]}) for name in GOOD},
    "another-user": changed(username="somebody-else"),
    "case-of-username": changed(username="user"),
    "long-username": changed(username="x" * 100_000),
    "version-negative": changed(version=-1),
    "version-fraction": changed(version=1.5),
    "version-huge": changed(version=1e300),
    "refused-otherwise": changed(refused="some-day"),
    "bad-rule": changed(rules=["readWrite #", "dance #"]),
    "bad-filter": changed(rules=["read a/#/b"]),
    "long-rule": changed(rules=["read " + "a/" * 100_000]),
    "too-many-rules": changed(rules=["read a"] * 100_001),
    "too-many-credentials": changed(credentials={f"p:{number}": None for number in range(100_001)}),
    "until-negative": changed(credentials={"p:secret": -1}),
    "until-text": changed(credentials={"p:secret": "never"}),
    "until-huge": changed(credentials={"p:secret": 1e300}),
}


class HostileSite(Site):
    tls: dict[str, Any]

    def certificate_device(self) -> Any:
        """A device whose first question makes the plugin fetch its user."""
        username = self.user("write a", certificates={"ABCDEF": None})
        tls = self.tls["authority"].client_tls(username, 0xABCDEF)
        return self.connected(None, None, port=self.tls["port"], tls=tls)


@pytest.fixture(scope="module")
def shared_site(plugin_build: Build, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    port = free_port()
    before = f"persistence false\n{authority.listener(port)}"
    with HostileSite(plugin_build, tmp_path_factory.mktemp("broker"), before=before) as site:
        site.tls = {"authority": authority, "port": port}
        site.wait_until_up()
        yield site


@pytest.fixture
def hostile(site: Site) -> Iterator[HostileSite]:
    """A site with a good client, which is served before, while and after the service is hostile."""
    assert isinstance(site, HostileSite)
    good = site.connected(site.user("readWrite good"))
    good.subscribe("good")
    yield site
    assert good.publish("good", "x") == 0
    assert good.received() == ("good", b"x")
    site.service.raw.clear()
    site.service.answers.clear()
    known = site.connected(good.username)
    assert known.publish("bad") == NOT_AUTHORIZED
    wait_for(lambda: site.code(site.user()) == 0, RECOVERY)
    site.service.replace(good.username, rules=["readWrite good", "readWrite later"])
    wait_for(lambda: good.publish("later") == 0, RECOVERY)
    assert good.stayed_connected()
    if not site.build.is_sanitized:
        assert peak_memory(site.broker.pid) < MOST_MEMORY


def peak_memory(pid: int) -> int:
    """Return the largest resident memory of a process so far, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def refuses_logins(site: HostileSite) -> None:
    assert site.code(site.user("readWrite #")) != 0


def denies_a_first_question(site: HostileSite, answer: Answer | None) -> None:
    device = site.certificate_device()
    if answer:
        site.service.raw[USERS] = answer
    assert device.publish("a") == NOT_AUTHORIZED


def keeps_the_old_rules(site: HostileSite, answer: Answer) -> None:
    device = site.connected(site.user("write a"))
    site.service.raw[USERS] = answer
    fetches = site.fetches(device.username)
    site.service.replace(device.username, rules=["write b"])
    wait_for(lambda: site.fetches(device.username) > fetches)
    assert device.publish("b") == NOT_AUTHORIZED
    assert device.publish("a") == 0
    site.service.raw.clear()
    wait_for(lambda: device.publish("b") == 0, RECOVERY)


def loses_the_stream(site: HostileSite, answer: Answer) -> None:
    site.service.raw[STREAM] = answer
    streams = len(site.service.asked(STREAM))
    site.service.end_streams()
    wait_for(lambda: len(site.service.asked(STREAM)) > streams + 1, RECOVERY)


def keeps_its_reports(site: HostileSite, answer: Answer) -> None:
    device = site.connected(site.user())
    site.service.raw[REPORT] = answer
    reports = len(site.service.asked(REPORT))
    device.publish("denied")
    wait_for(lambda: len(site.service.asked(REPORT)) > reports)
    site.service.raw.clear()
    wait_for(lambda: site.denials(device.username), RECOVERY)


@pytest.mark.parametrize("answer", HTTP)
def test_hostile_answer_to_a_login_refuses_it(hostile: HostileSite, answer: str) -> None:
    hostile.service.raw[LOGIN] = HTTP[answer]
    refuses_logins(hostile)


@pytest.mark.parametrize("answer", HTTP)
def test_hostile_answer_about_a_user_denies_its_first_question(hostile: HostileSite, answer: str) -> None:
    denies_a_first_question(hostile, HTTP[answer])


@pytest.mark.parametrize("answer", HTTP)
def test_hostile_answer_about_a_changed_user_changes_nothing(hostile: HostileSite, answer: str) -> None:
    keeps_the_old_rules(hostile, HTTP[answer])


@pytest.mark.parametrize("answer", HTTP)
def test_hostile_stream_is_begun_again(hostile: HostileSite, answer: str) -> None:
    loses_the_stream(hostile, HTTP[answer])


@pytest.mark.parametrize("answer", HTTP)
def test_report_with_a_hostile_answer_is_sent_again(hostile: HostileSite, answer: str) -> None:
    keeps_its_reports(hostile, HTTP[answer])


@pytest.mark.slow
@pytest.mark.parametrize("answer", SLOW)
@pytest.mark.parametrize(
    "ask",
    [refuses_logins, denies_a_first_question, keeps_the_old_rules, loses_the_stream, keeps_its_reports],
    ids=lambda ask: ask.__name__,
)
def test_slow_answer_is_not_waited_for(hostile: HostileSite, ask: Callable[..., None], answer: str) -> None:
    if ask is refuses_logins:
        hostile.service.raw[LOGIN] = SLOW[answer]
        ask(hostile)
    else:
        ask(hostile, SLOW[answer])


@pytest.mark.parametrize("state", STATES)
def test_hostile_state_of_a_user_lets_it_do_nothing(hostile: HostileSite, state: str) -> None:
    user = hostile.user("readWrite #", certificates={"ABCDEF": None})
    text = json.dumps(STATES[state]).replace("USER", user)
    login = f'{{"ok":true,"error":"","credential":"p:secret","user":{text}}}'
    users = f'{{"version":1,"users":[{text}]}}'
    hostile.service.raw[LOGIN] = body(login.encode())
    assert hostile.code(user) != 0
    hostile.service.raw.clear()
    hostile.service.raw[USERS] = body(users.encode())
    device = hostile.certificate_device()
    assert device.publish("a") == NOT_AUTHORIZED


LINES = {
    "empty": b"\n",
    "text": b"hello\n",
    "number": b"7\n",
    "nul": b"\x00\n",
    "not-utf-8": b'{"version":5,"users":["\xff"]}\n',
    "wrong-types": b'{"version":"5","users":7,"roles":{"a":"b"},"disconnect":"all"}\n',
    "nested": b'{"version":5,"users":[["a"],{"b":1},null,7],"roles":[[]]}\n',
    "deep": b"[" * 100_000 + b"\n",
    "huge-version": b'{"version":1e300,"users":["nobody"]}\n',
    "negative-version": b'{"version":-5,"roles":["nobody"]}\n',
    "huge-number": b'{"disconnect":[1e300,-1e300,1e19,NaN]}\n',
    "many-numbers": b'{"disconnect":[' + b"9," * 200_000 + b"9]}\n",
    "many-users": b'{"version":1,"users":[' + b'"u",' * 200_000 + b'"u"]}\n',
    "second-greeting": b'{"protocol":1,"version":1,"service":"x"}\n',
    "other-protocol": b'{"protocol":2,"version":1}\n',
    "endless": b"x" * 3_000_000,
    "cut": b'{"version":',
}


@pytest.mark.parametrize("line", LINES)
def test_hostile_line_of_the_stream_stops_no_later_change(hostile: HostileSite, line: str) -> None:
    hostile.service.send(LINES[line])


@pytest.mark.parametrize("greeting", [b'{"protocol":2,"version":1}\n', b'{"version":1}\n', b'{"protocol":"1"}\n'])
def test_stream_with_another_greeting_is_not_used(hostile: HostileSite, greeting: bytes) -> None:
    loses_the_stream(hostile, body(greeting))
    assert hostile.code(hostile.user()) != 0


@pytest.mark.parametrize("times", [1, 3])
def test_user_that_was_not_asked_for_is_ignored(hostile: HostileSite, times: int) -> None:
    device = hostile.connected(hostile.user("write a"))
    other = hostile.connected(hostile.user("write a"))
    states = [GOOD | {"username": name, "version": 10**9} for name in (other.username, "nobody")]
    answer = {"version": 1, "users": [*states * times, hostile.service.users[device.username].state("x", 10**9)]}
    hostile.service.raw[USERS] = partial(body(json.dumps(answer).encode()))
    fetches = hostile.fetches(device.username)
    hostile.service.replace(device.username, rules=["write b"])
    wait_for(lambda: hostile.fetches(device.username) > fetches + 1)
    assert other.publish("b") == NOT_AUTHORIZED
