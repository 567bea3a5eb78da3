"""What all pages share: rendering, the API call that authorizes a page, redirects and error pages.

A page shows or does what one API call does. Its view names that call with `authorize_as`. A user whose http permissions
do not allow the call gets neither the page nor a link to it, so there is no second set of access rules.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from flask import Blueprint, Flask, Response, current_app, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException

from authsvc import __version__
from authsvc.accounts.users import Origin
from authsvc.activity import audit
from authsvc.errors import AuthsvcError, Forbidden, InvalidInput
from authsvc.policy.topics import path_level
from authsvc.web import problem
from authsvc.web.request_context import services

if TYPE_CHECKING:
    from collections.abc import Callable

    from werkzeug.wrappers import Response as AnyResponse

NAVIGATION = "authsvc.navigation"
TILES = "authsvc.tiles"
ORIGINS = {
    Origin.ADMINISTRATOR: "administrator",
    Origin.REGISTRATION: "registration",
    Origin.OIDC: "OpenID Connect",
    Origin.LDAP: "LDAP",
}
"""The texts for the origins of users."""
_MAX_EVENTS = 10
View = TypeVar("View", bound="Callable[..., Any]")


class ApiCall(NamedTuple):
    """A call of the API; `path` may contain arguments of the page's route, as in `/api/users/{username}`."""

    method: str
    path: str


class NavigationEntry(NamedTuple):
    """A link in the header of every page, shown to users who may make the call and sorted by `position`.

    `waiting` returns how many things wait behind the link, None if that is not known.
    """

    position: int
    label: str
    endpoint: str
    call: ApiCall
    waiting: Callable[[], int | None] = lambda: None


class Tile(NamedTuple):
    """A figure on the overview page, with a link to the page that lists the details."""

    label: str
    value: str
    url: str | None = None
    kind: str = ""


def add_tile(app: Flask, call: ApiCall, draw: Callable[[], Tile]) -> None:
    """Add a tile to the overview, shown to users who may make the call."""
    app.extensions.setdefault(TILES, []).append((call, draw))


def page_blueprint(name: str, import_name: str, **options: Any) -> Blueprint:
    """Return a blueprint below `/admin` that answers errors with an error page."""
    blueprint = Blueprint(name, import_name, url_prefix="/admin", **options)
    blueprint.register_error_handler(AuthsvcError, _authsvc_error)
    blueprint.register_error_handler(HTTPException, _http_error)
    blueprint.register_error_handler(Exception, _unexpected_error)
    problem.on_lost_database(blueprint, _lost_database)
    blueprint.context_processor(template_context)
    return blueprint


def authorize_as(method: str, path: str) -> Callable[[View], View]:
    """Mark a view as needing the permission for this API call; the guard refuses a view without the mark."""

    def mark(view: View) -> View:
        view.api_call = ApiCall(method, path)  # type: ignore[attr-defined]
        return view

    return mark


def polled(view: View) -> View:
    """Mark a view that open pages request on a timer; such a request does not extend the browser session."""
    view.polled = True  # type: ignore[attr-defined]
    return view


def required_api_call() -> ApiCall | None:
    """Return the API call that authorizes the view of this request, with the request's own arguments filled in."""
    view = current_app.view_functions.get(request.endpoint or "")
    call: ApiCall | None = getattr(view, "api_call", None)
    levels = {name: path_level(value) for name, value in (request.view_args or {}).items()}
    return call and ApiCall(call.method, call.path.format(**levels))


def may_call(method: str, path: str) -> bool:
    """Return whether the signed-in user's http permissions allow this API call."""
    user = g.get("caller")
    return user is not None and bool(services().access.may_call(user, method, path))


def require_read(path: str) -> None:
    """Raise `Forbidden` unless the signed-in user may read this API path.

    A view that is authorized by a write permission calls this before it shows stored values.
    """
    if not may_call("GET", path):
        raise Forbidden(f"your account needs the permission `http read {path}` to do this")


def add_pages(app: Flask, blueprint: Blueprint, *entries: NavigationEntry) -> None:
    """Register a blueprint of pages, and add links to them to the header of every page."""
    app.register_blueprint(blueprint)
    app.extensions.setdefault(NAVIGATION, []).extend(entries)


def render(template: str, status: int = 200, error: AuthsvcError | None = None, **context: Any) -> Response:
    """Return a rendered page; an `error` sets its status and the template's `errors`, which are messages by field."""
    context.setdefault("errors", messages_by_field(error))
    return make_response(render_template(template, **context), problem.status_of(error) if error else status)


def redirect_to(url: str) -> AnyResponse:
    """Return a 303 redirect; to an htmx request, a 204 whose `HX-Redirect` header makes htmx load the URL."""
    if is_htmx_request():
        return Response(status=204, headers={"HX-Redirect": url})
    return redirect(url, 303)


def redirect_if_readable(path: str, endpoint: str, **values: Any) -> AnyResponse:
    """Return a redirect to an endpoint if the user may read the API path behind it, otherwise to the overview."""
    return redirect_to(url_for(endpoint, **values) if may_call("GET", path) else url_for("overview.show"))


def is_htmx_request() -> bool:
    """Return whether htmx requested a part of a page."""
    return request.headers.get("HX-Request") == "true" and request.headers.get("HX-Boosted") != "true"


def messages_by_field(error: AuthsvcError | None) -> dict[str, str]:
    """Return the messages of an error by field name; a message about no single field has an empty name."""
    if error is None:
        return {}
    if isinstance(error, InvalidInput):
        return {one.field: one.message for one in error.errors}
    return {"": error.message}


def latest_audit_events(target: str) -> list[audit.Event] | None:
    """Return the latest audit events about a target; None if the caller may not read the audit trail."""
    if not may_call("GET", "/api/audit"):
        return None
    return audit.events(1, _MAX_EVENTS, audit.AuditFilter(target=target)).items


def template_context() -> dict[str, Any]:
    """Return the variables that every template may use."""
    parts = services()
    return {
        "caller": g.get("caller"),
        "has_broker": parts.broker is not None,
        "layout": "admin/dialog.html" if is_htmx_request() else "admin/sheet.html",
        "may_call": may_call,
        "navigation": sorted(entry for entry in current_app.extensions[NAVIGATION] if may_call(*entry.call)),
        "now": datetime.now(UTC),
        "policy_is_stale": parts.policy_is_stale,
        "version": __version__,
    }


def error_page(status: int, message: str) -> Response:
    """Return an error as a whole page, or as a fragment if htmx made the request."""
    title = problem.TITLES.get(status, "Error")
    template = "admin/error_part.html" if is_htmx_request() else "admin/error.html"
    # Without the numbers in the navigation: the database may be what failed, and each attempt to reach it takes time.
    return render(template, status, title=title, message=message, without_numbers=True)


def _authsvc_error(error: AuthsvcError) -> Response:
    return error_page(problem.status_of(error), error.message)


def _http_error(error: HTTPException) -> Response:
    status = error.code or 500
    messages = {404: "This page does not exist.", 405: "This address does not accept that HTTP method."}
    return error_page(status, messages.get(status) or error.description or error.name)


def _lost_database(error: Exception) -> Response:
    problem.log_lost_database(error)
    # A bulk action may have changed some rows before the connection was lost, so the message makes no promise.
    return error_page(503, "The database cannot be reached. Reload the page later to see what was saved.")


def _unexpected_error(error: Exception) -> Response:
    problem.log_unexpected(error)
    # Plain text, because rendering a template may be what failed.
    message = f"Internal error (request id {g.get('request_id')})\n\n{problem.INTERNAL_ERROR}"
    return Response(message, 500, content_type="text/plain; charset=utf-8")
