"""The administrator's page: what the API does, to look at and to click.

`pages` has what every page shares, `guard` says who may see which, and each noun has a module of its own. Pages call
the API's use cases and know no table; which fields a form may have is said by the API's own shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, abort, request

from authsvc.admin import certificates, forms, guard, overview, roles, sign_in, tokens, users, why
from authsvc.admin.cookies import SignedCookie
from authsvc.admin.pages import add, pages, stands_for
from authsvc.web.escape import escape_invisible
from authsvc.web.request_context import is_page

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

# The frame of all pages: its templates, its files, and the addresses that are none.
frame = pages("admin", __name__, template_folder="templates", static_folder="static", static_url_path="/static")


def register(app: Flask) -> None:
    """Add the pages to the app, and the guard before them."""
    app.session_interface = SignedCookie()
    app.before_request(_guard)
    app.after_request(_protect)
    # Global, since macros do not see what a page's template is given.
    app.jinja_env.globals.update(form_token=guard.form_token, legible=escape_invisible)
    for blueprint in (frame, sign_in.blueprint, forms.blueprint, why.blueprint):
        add(app, blueprint)
    for noun in (overview, certificates, tokens, users, roles):
        add(app, noun.blueprint, noun.NAVIGATION)


@frame.route("/<path:_anything>", methods=["GET", "POST"])
@stands_for("GET", "/api/me")
def nowhere(_anything: str) -> AnyResponse:
    """Answer an address that is no page's with a page."""
    abort(404)


def _guard() -> AnyResponse | None:
    return guard.check() if is_page(request.path) else None


def _protect(response: Response) -> Response:
    return guard.protect(response) if is_page(request.path) else response
