"""Filters, sorting and exports on the command line, `authsvc denials` and `authsvc status`."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.actors import ADMIN_PASSWORD
from tests.http.broker import broker_by
from tests.http.console import stdout_of

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.web.request_context import Services
    from tests.http.callers import Caller
    from tests.http.console import Console
    from tests.service import Service


def _told(console: Console | Service, *arguments: str) -> Any:
    return json.loads(stdout_of(console.command(*arguments, "--json")))


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ("--role line", "role=line"),
        ("--disabled", "enabled=false"),
        ("--enabled --grant-type certificate", "enabled=true&grantType=certificate"),
        ("--origin registration", "origin=registration"),
        ("--seen-after 2026-01-01", "lastSeenAfter=2026-01-01T00:00:00Z"),
        ("--seen-before 2026-01-01T12:00:00+02:00", "lastSeenBefore=2026-01-01T10:00:00Z"),
        ("--administrators-on-broker", "administratorOnBroker=true"),
        ("--sort -username --per-page 3", "sort=-username&perPage=3"),
        ("--sort createdAt", "sort=createdAt"),
    ],
)
def test_users_are_filtered_and_sorted_as_over_rest(console: Console, alice: Caller, options: str, query: str) -> None:
    assert _told(console, "users", "list", *options.split()) == alice.get(f"/api/users?{query}").get_json()


@pytest.mark.parametrize(
    ("options", "query"),
    [
        ("--action user.* --per-page 3", "action=user.*&perPage=3"),
        ("--oldest-first", "sort=at"),
        ("--after 2026-01-01T00:00 --before 2030-01-01", "after=2026-01-01T00:00:00Z&before=2030-01-01T00:00:00Z"),
        ("--before 2026-01-01", "before=2026-01-01T00:00:00Z"),
    ],
)
def test_audit_trail_is_filtered_as_over_rest(console: Console, alice: Caller, options: str, query: str) -> None:
    assert _told(console, "audit", *options.split()) == alice.get(f"/api/audit?{query}").get_json()


@pytest.mark.parametrize("words", [("users", "list"), ("audit",)], ids=" ".join)
def test_export_prints_everything_that_matches(console: Console, words: tuple[str, ...]) -> None:
    listed = _told(console, *words, "--per-page", "1000")
    exported = json.loads(stdout_of(console.command(*words, "--export", "json", "--per-page", "1")))
    assert len(listed["items"]) == listed["total"] > 5
    for item in listed["items"]:
        item.pop("warnings", None)  # about combinations of rules, which an export does not compute
    assert exported == {"items": listed["items"], "complete": True}
    rows = list(csv.DictReader(io.StringIO(stdout_of(console.command(*words, "--export", "csv")), newline="")))
    key = "username" if words[0] == "users" else "id"
    assert [row[key] for row in rows] == [str(item[key]) for item in listed["items"]]


def test_denials_of_all_users_are_listed_as_over_rest(
    console: Console, app: OpenAPI, services: Services, alice: Caller
) -> None:
    broker = broker_by("function", app)
    broker.acl("bob", "elsewhere", 2)
    broker.acl("carol", "sensors/1", 1)
    broker.logs_in("dora", "x")
    services.denials.store()
    for options, query in (
        ("", ""),
        ("--username bob", "username=bob"),
        ("--search sensors", "search=sensors"),
        ("--kind login", "kind=login"),
        ("--reason user-disabled", "reason=user-disabled"),
        ("--before 2026-01-01", "before=2026-01-01T00:00:00Z"),
    ):
        assert _told(console, "denials", *options.split()) == alice.get(f"/api/denials?{query}").get_json(), options
    table = stdout_of(console.command("denials", "--kind", "topic"))
    assert "bob" in table
    assert "write elsewhere" in table
    assert "dora" not in table


def test_status_shows_what_the_page_shows(running: Service) -> None:
    before = stdout_of(running.command("status"))
    assert before.count("not running here") == 2
    running.start()
    told = _told(running, "status")
    over_rest = running.call("GET", "/api/status", auth=("admin", ADMIN_PASSWORD)).json()
    same = ("version", "python", "database", "brokerProcessesFollow", "brokers")
    assert {name: told[name] for name in same} == {name: over_rest[name] for name in same}
    pids = [one["processes"][0]["pid"] for one in told["listeners"]]
    assert pids == [one["processes"][0]["pid"] for one in over_rest["listeners"]]
    assert sorted(pids) == sorted(running.workers())
    assert told["policy"]["version"] == over_rest["policy"]["version"]
    shown = stdout_of(running.command("status"))
    assert "broker processes: up to date" in shown
    assert str(pids[0]) in shown
    assert ADMIN_PASSWORD not in shown
