"""Signing in at an OpenID provider and out again, in a browser."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.admin.page_objects import Window
from tests.identity.openid import OpenIdProvider
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has a provider with one person, Erika."""
    service = Service(tmp_path_factory.mktemp("page"))
    with OpenIdProvider(tmp_path_factory.mktemp("provider"), service.url) as provider:
        service.environment |= provider.environment({"plant-admins": ["admin"]})
        provider.has({"1": {"preferred_username": "erika@plant.example", "groups": ["plant-admins"]}})
        provider.signs_in("1")
        with service:
            yield service


def test_person_signs_in_at_the_provider_and_out_of_both(service: Service, page: Page) -> None:
    window = Window(page)
    window.open("/admin/certificates?status=valid")
    page.get_by_role("button", name="Sign in with the plant").click()
    expect(page).to_have_url(service.url + "/admin/certificates?status=valid")
    expect(page.locator(".who")).to_contain_text("erika")
    window.open("/admin/users/erika")
    expect(page.get_by_text("Roles of its groups")).to_be_visible()
    assert not window.script_errors
    page.get_by_role("button", name="Sign out").click()
    # The provider asks whether its own session should end too.
    page.get_by_role("button", name=re.compile("sign me out")).click()
    expect(page).to_have_url(service.url + "/admin/sign-in")
    expect(page.get_by_label("Password")).to_be_visible()
