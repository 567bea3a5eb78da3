"""What all pages share: how they are drawn, what they stand for, and how an error becomes one.

A page shows and does what some call of the API does. It names that call with `stands_for`, and whoever may not make
the call by its http permissions neither gets the page nor sees a link to it; there is no second set of rules.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flask import Blueprint, Flask, Response, current_app, g, make_response, redirect, render_template, request
from werkzeug.exceptions import HTTPException

from authsvc import __version__
from authsvc.errors import AuthsvcError, Forbidden, InvalidInput
from authsvc.web import problem
from authsvc.web.request_context import services

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug.wrappers import Response as AnyResponse

NAVIGATION = "authsvc.navigation"
TILES = "authsvc.tiles"
View = TypeVar("View", bound="Callable[..., Any]")


class ApiCall(NamedTuple):
    """A call of the API; `path` may name arguments of the page, as in `/api/users/{username}`."""

    method: str
    path: str


class NavigationEntry(NamedTuple):
    """A link in every page's head, for those who may make the call; `position` says where among the others."""

    position: int
    label: str
    endpoint: str
    call: ApiCall


class Tile(NamedTuple):
    """A number on the overview, and the page that has more about it."""

    label: str
    value: str
    url: str | None = None
    kind: str = ""


def add_tile(app: Flask, call: ApiCall, draw: Callable[[], Tile]) -> None:
    """Add a number to the overview, for those who may make the call."""
    app.extensions.setdefault(TILES, []).append((call, draw))


def pages(name: str, import_name: str, **options: Any) -> Blueprint:
    """Return a blueprint below `/admin` whose errors are pages."""
    blueprint = Blueprint(name, import_name, url_prefix="/admin", **options)
    blueprint.register_error_handler(AuthsvcError, _of_error)
    blueprint.register_error_handler(HTTPException, _of_http)
    blueprint.register_error_handler(Exception, _of_anything)
    problem.on_lost_database(blueprint, _of_lost_database)
    blueprint.context_processor(template_context)
    return blueprint


def stands_for(method: str, path: str) -> Callable[[View], View]:
    """Say which call of the API a page's view stands for; the guard refuses views that do not say."""

    def mark(view: View) -> View:
        view.call = ApiCall(method, path)  # type: ignore[attr-defined]
        return view

    return mark


def unattended(view: View) -> View:
    """Mark a view that pages ask for by themselves, which keeps nobody's session alive."""
    view.unattended = True  # type: ignore[attr-defined]
    return view


def call_of_view() -> ApiCall | None:
    """Return the call that the view of this request stands for, with the request's own arguments in it."""
    view = current_app.view_functions.get(request.endpoint or "")
    call: ApiCall | None = getattr(view, "call", None)
    return call and ApiCall(call.method, call.path.format(**(request.view_args or {})))


def may(method: str, path: str) -> bool:
    """Say whether whoever is signed in may make that call of the API."""
    user = g.get("caller")
    return user is not None and bool(services().access.may_call(user, method, path))


def must_read(path: str) -> None:
    """Raise `Forbidden` unless the caller may read what stands at that path of the API, to which it may write."""
    if not may("GET", path):
        raise Forbidden(f"you lack http read on {path}")


def add(app: Flask, blueprint: Blueprint, *entries: NavigationEntry) -> None:
    """Add pages to the app, and links to them to every page's head."""
    app.register_blueprint(blueprint)
    app.extensions.setdefault(NAVIGATION, []).extend(entries)


def render(template: str, status: int = 200, **context: Any) -> Response:
    """Draw a page."""
    return make_response(render_template(template, **context), status)


def see(url: str) -> AnyResponse:
    """Send the browser on after a change; within a page that htmx moves, too (its `HX-Redirect`)."""
    if is_partial():
        return Response(status=204, headers={"HX-Redirect": url})
    return redirect(url, 303)


def is_partial() -> bool:
    """Say whether htmx asked, for a part of a page."""
    return request.headers.get("HX-Request") == "true" and request.headers.get("HX-Boosted") != "true"


def by_field(error: AuthsvcError | None) -> dict[str, str]:
    """Return an error's words by the field they belong to; those that belong to none under the empty name."""
    if error is None:
        return {}
    if isinstance(error, InvalidInput):
        return {one.field: one.message for one in error.errors}
    return {"": error.message}


def template_context() -> dict[str, Any]:
    """Return what every template may use."""
    return {
        "caller": g.get("caller"),
        "layout": "admin/dialog.html" if is_partial() else "admin/sheet.html",
        "may": may,
        "navigation": sorted(entry for entry in current_app.extensions[NAVIGATION] if may(*entry.call)),
        "now": datetime.now(UTC),
        "policy_is_stale": services().policy_is_stale,
        "version": __version__,
    }


def error_page(status: int, message: str) -> Response:
    """Draw an error: alone in its dialog or region when htmx asked, else as a page."""
    title = problem.TITLES.get(status, "Error")
    template = "admin/error_part.html" if is_partial() else "admin/error.html"
    return render(template, status, title=title, message=message)


def _of_error(error: AuthsvcError) -> Response:
    return error_page(problem.status_of(error), error.message)


def _of_http(error: HTTPException) -> Response:
    status = error.code or 500
    words = {404: "There is nothing at this address.", 405: "This address does not take that method."}
    return error_page(status, words.get(status) or error.description or error.name)


def _of_lost_database(error: Exception) -> Response:
    problem.log_lost_database(error)
    return error_page(503, problem.DATABASE_LOST)


def _of_anything(error: Exception) -> Response:
    problem.log_unexpected(error)
    # Without a template, for drawing one may be what went wrong.
    words = f"Something went wrong ({g.get('request_id')})\n\n{problem.INTERNAL_ERROR}"
    return Response(words, 500, content_type="text/plain; charset=utf-8")
