"""`authsvc clients`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from authsvc.activity import live_clients
from tests.http.console import error_of, stdout_of
from tests.live_clients import OTHER_BOOT, connected, report

if TYPE_CHECKING:
    import pytest

    from tests.http.callers import Caller
    from tests.http.console import Console


def test_connected_clients_are_listed(console: Console) -> None:
    report(connected(1, address=None), connected(2, "carol", "press-7"))
    report(connected(1, client_id="other"), boot=OTHER_BOOT, name="hall")
    heading, *rows = stdout_of(console.command("clients", "list")).splitlines()
    assert heading.split() == ["BROKER", "CLIENT", "ID", "USERNAME", "ADDRESS", "PROTOCOL", "CONNECTED", "CREDENTIAL"]
    assert "plant   press-7    carol     10.0.0.7  MQTT 5.0  2026-11-20T08:00:02Z  password" in rows[0]
    assert len(rows) == 3
    for options in (("--broker", "plant", "--search", "ss-7"), ("--username", "carol")):
        assert len(stdout_of(console.command("clients", "list", *options)).splitlines()) == 2
    assert stdout_of(console.command("clients", "list", "--per-page", "2")).endswith("page 1: 2 of 3 clients\n")


def test_json_of_command_agrees_with_the_api(console: Console, alice: Caller) -> None:
    report(connected(1), connected(2, "carol", "press-7"))
    assert json.loads(stdout_of(console.command("clients", "list", "--json"))) == alice.get("/api/clients").get_json()


def test_control_characters_in_a_client_id_are_escaped(console: Console) -> None:
    report(connected(1, client_id="a\x1b[31m\u202eb"))
    assert "a\\x1b[31m\\u202eb" in stdout_of(console.command("clients", "list"))


def test_client_is_disconnected(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    report(connected(1, client_id="a/b"), connected(2), connected(3))
    monkeypatch.setattr(live_clients, "CONFIRMED_WITHIN_SECONDS", 0.05)
    told = error_of(console.command("clients", "disconnect", "plant", "c-2"))
    assert "has not reported the end" in told
    shown = stdout_of(console.command("clients", "disconnect", "plant", "c-2", "--json"))
    assert json.loads(shown) == {"broker": "plant", "clientId": "c-2", "disconnected": False}
    monkeypatch.setattr(live_clients, "_order", lambda *_: report(disconnected=(1,)))
    assert stdout_of(console.command("clients", "disconnect", "plant", "a/b")) == "a/b disconnected\n"
    told = error_of(console.command("clients", "disconnect", "plant", "a/b"))
    assert told == "no client with this client id is connected to this broker"
