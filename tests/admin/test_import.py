"""The import page: upload, a plan that changes nothing, and a confirmation that is checked again."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from tests.admin.page_objects import FormClient
from tests.importing.asking import pbkdf2
from tests.service import ADMIN_PASSWORD

if TYPE_CHECKING:
    import requests

    from tests.service import Service

SALT, HASH = pbkdf2("press-7")


def signed_in(service: Service) -> FormClient:
    client = FormClient(service.url)
    client.sign_in("admin", ADMIN_PASSWORD)
    return client


def files_for(*usernames: str) -> dict[str, str]:
    """Return the files of an import of these users."""
    passwords = "".join(f"{name}:$7$101${SALT}${HASH}\n" for name in usernames)
    acl = "".join(f"user {name}\ntopic readwrite <b>/{name}/#\n" for name in usernames)
    return {"passwords": passwords, "acl": f"topic read news/#\n{acl}"}


def upload(client: FormClient, files: dict[str, str], **fields: str) -> requests.Response:
    data = fields | {"csrf_token": client.form_token("/admin/import/mosquitto")}
    return client.session.post(f"{client.url}/admin/import/mosquitto/plan", data=data, files=files, timeout=20)


def confirm(client: FormClient, shown: requests.Response, **changed: str) -> requests.Response:
    """Submit the confirmation that a plan has, with some fields changed."""
    form = shown.text[shown.text.index('/admin/import/mosquitto"') :]
    fields = {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
    }
    parts = {name: (None, value) for name, value in (fields | changed).items()}
    url = f"{client.url}/admin/import/mosquitto"
    return client.session.post(url, files=parts, timeout=20, allow_redirects=False)


def test_plan_is_shown_and_nothing_is_changed_before_the_confirmation(service: Service) -> None:
    client = signed_in(service)
    shown = upload(client, files_for("page-1"))
    assert shown.status_code == 200, shown.text
    assert "Nothing has been changed yet. 1 would be created" in shown.text
    assert "<code>acl_file line 1</code>: rules before the first" in shown.text
    assert "readWrite &lt;b&gt;/page-1/#" in shown.text
    assert HASH not in shown.text
    assert service.call("GET", "/api/users/page-1").status_code == 404

    assert confirm(client, shown).status_code == 303
    assert service.call("GET", "/api/users/page-1").json()["hasPassword"] is True
    assert "There is nothing to import." in upload(client, files_for("page-1")).text


def test_confirmation_of_another_plan_than_the_one_shown_changes_nothing(service: Service) -> None:
    client = signed_in(service)
    shown = upload(client, files_for("page-2", "page-3"), update="yes")
    service.create_user("page-3")
    refused = confirm(client, shown)
    assert refused.status_code == 409
    assert "check the plan again" in refused.text
    assert service.call("GET", "/api/users/page-2").status_code == 404
    # The page shows the new plan, which can be confirmed.
    assert confirm(client, refused).status_code == 303
    assert service.call("GET", "/api/users/page-2").status_code == 200


def test_changed_files_in_the_confirmation_change_nothing(service: Service) -> None:
    client = signed_in(service)
    shown = upload(client, files_for("page-4"))
    for changed in ("", "no Base64!", "cGFnZS01OiQ3JDEwMQ=="):
        assert confirm(client, shown, passwords=changed).status_code in (400, 409)
    assert service.call("GET", "/api/users/page-4").status_code == 404


def test_files_of_another_kind_are_refused_with_the_form(service: Service) -> None:
    client = signed_in(service)
    for files in ({}, {"passwords": b"\xff"}):
        refused = upload(client, files or {"other": "x"})  # type: ignore[arg-type]
        assert refused.status_code == 400
        assert "Nothing was imported." in refused.text


def test_page_needs_the_permission_of_the_api_call(service: Service) -> None:
    service.create_user("page-reader", "a password of mine", "http read /#")
    client = FormClient(service.url)
    client.sign_in("page-reader", "a password of mine")
    assert client.get("/admin/import/mosquitto").status_code == 403
