"""The page of the audit trail: filters, rights and exports."""

from __future__ import annotations

import csv
import io
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from authsvc.exports.formats import harmless
from tests.admin.page_objects import FormClient, Window

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.service import Service

_numbers = count()


def signed_in(service: Service, *permissions: str) -> FormClient:
    name = f"auditor-{next(_numbers)}"
    service.create_user(name, "secret", *permissions)
    client = FormClient(service.url)
    assert client.sign_in(name, "secret").status_code == 303
    return client


def new_role(service: Service, description: str) -> str:
    name = f"role-{next(_numbers)}"
    assert service.call("POST", "/api/roles", json={"name": name, "description": description}).status_code == 201
    return name


def test_changes_are_shown_with_escaped_values(service: Service) -> None:
    role = new_role(service, "<b>bold</b> a\u202eb")
    shown = signed_in(service, "http read /api/audit").get(f"/admin/audit?target=role:{role}").text
    assert "&lt;b&gt;bold&lt;/b&gt; a\\u202eb" in shown
    assert "<b>bold" not in shown
    assert "role.create" in shown


def test_filters_by_actor_action_target_and_time(service: Service) -> None:
    role = new_role(service, "filtered")
    client = signed_in(service, "http read /api/audit")

    def shows(query: str) -> bool:
        answer = client.get(f"/admin/audit?{query}")
        assert answer.status_code == 200
        return f">role:{role}</a>" in answer.text

    assert shows(f"target=role:{role}&action=role.create&actor=admin&after=2020-01-01T00:00")
    assert shows(f"target={role[:-1].join(['role:', '*'])}&action=role.*&perPage=1000")
    assert not shows(f"target=role:{role}&actor=nobody")
    assert not shows(f"target=role:{role}&action=role.change")
    assert not shows(f"target=role:{role}&before=2020-01-01T00:00:00Z")


@pytest.mark.parametrize("query", ["after=yesterday", "after=0001-01-01T00:00", "page=0", "actor=%00", "surprise=1"])
@pytest.mark.parametrize("page", ["audit", "audit.csv", "audit.json"])
def test_invalid_filter_is_a_client_error(service: Service, page: str, query: str) -> None:
    assert signed_in(service, "http read /api/#").get(f"/admin/{page}?{query}").status_code == 400


@pytest.mark.parametrize("page", ["audit", "audit.csv", "audit.json"])
def test_user_who_may_not_read_the_audit_trail_gets_403_and_no_link(service: Service, page: str) -> None:
    client = signed_in(service, "http read /api/users/#", "http read /api/me")
    assert client.get(f"/admin/{page}").status_code == 403
    shown = client.get("/admin/users").text
    assert "/admin/audit" not in shown
    assert '/admin/audit"' in signed_in(service, "http read /api/#").get("/admin/users").text


def test_csv_export_has_the_filtered_events_and_no_formulas(service: Service) -> None:
    role = new_role(service, 'say "hello", twice\nin two lines')
    client = signed_in(service, "http read /api/audit")
    answer = client.get(f"/admin/audit.csv?target=role:{role}")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="audit.csv"'
    (row,) = csv.DictReader(io.StringIO(answer.content.decode(), newline=""))
    assert (row["actor"], row["action"], row["target"]) == ("admin", "role.create", f"role:{role}")
    assert r"say \"hello\", twice\nin two lines" in row["after"]
    assert answer.text.splitlines()[0].startswith('"id","at","actor",')


@pytest.mark.parametrize(
    "cell", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20sum"]
)
def test_cell_that_a_spreadsheet_would_run_begins_with_an_apostrophe(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"
    assert harmless(f"a{cell}") == f"a{cell}"


def test_json_export_has_the_events_as_the_api_shows_them(service: Service) -> None:
    role = new_role(service, "exported")
    client = signed_in(service, "http read /api/audit")
    exported: dict[str, Any] = client.get(f"/admin/audit.json?target=role:{role}").json()
    listed = service.call("GET", f"/api/audit?target=role:{role}").json()["items"]
    assert exported == {"items": listed, "complete": True}
    assert client.get("/admin/audit.json?target=none").json() == {"items": [], "complete": True}


def test_time_filter_is_entered_in_the_time_zone_of_the_browser(service: Service, browser: Browser) -> None:
    context = browser.new_context(base_url=service.url, timezone_id="Asia/Tokyo")
    window = Window(context.new_page())
    window.sign_in("admin", "correct horse")
    window.open("/admin/audit")
    window.page.get_by_label("From (local time)").fill("2026-01-02T09:30")
    window.page.get_by_role("button", name="Filter").click()
    expect(window.page).to_have_url("/admin/audit?after=2026-01-02T00%3A30%3A00Z&before=&actor=&action=&target=")
    expect(window.page.get_by_label("From (local time)")).to_have_value("2026-01-02T09:30")
    assert not window.script_errors
    context.close()
