"""The web interface for administrators: every page is a call of the REST API and needs the same permission.

`pages` holds what all pages share, `guard` checks sessions and permissions, and each noun has its own module. Pages
call the same functions as the API and validate form fields with the API's schemas; they query no tables.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from flask import Flask, abort

from authsvc.admin import (
    certificates,
    clients,
    forms,
    guard,
    imports,
    notifications,
    overview,
    roles,
    tokens,
    user_selection,
    users,
    why,
)
from authsvc.admin.account import own, sign_in
from authsvc.admin.cookies import SignedCookie
from authsvc.admin.pages import add_pages, authorize_as, page_blueprint
from authsvc.admin.reports import audit, denials, status
from authsvc.policy.topics import path_level
from authsvc.web.escape import escape_invisible

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

# Templates, static files, and the 404 page for unknown addresses.
blueprint = page_blueprint(
    "admin", __name__, template_folder="templates", static_folder="static", static_url_path="/static"
)


def register(app: Flask) -> None:
    """Add the pages to the app, and the guard that runs before them."""
    app.session_interface = SignedCookie()
    app.before_request(guard.check_request)
    app.after_request(guard.add_security_headers)
    # Jinja globals, because imported macros do not see the context of the page's template.
    app.jinja_env.globals.update(
        form_token=guard.form_token, escape_invisible=escape_invisible, path_level=path_level, utc=UTC
    )
    parts = (sign_in, own, forms, why, user_selection, imports)
    for part in (blueprint, *(each.blueprint for each in parts)):
        add_pages(app, part)
    for noun in (overview, certificates, tokens, users, roles, clients, denials, audit, notifications, status):
        add_pages(app, noun.blueprint, noun.NAVIGATION)


@blueprint.route("/<path:_anything>", methods=["GET", "POST"])
@authorize_as("GET", "/api/me")
def unknown_page(_anything: str) -> AnyResponse:
    abort(404)
