"""Who may see which page: a session, forms that were drawn here, and the http permissions of the API's own calls."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from flask import Response, current_app, g, request, session, url_for
from flask_wtf.csrf import generate_csrf, validate_csrf
from wtforms import ValidationError

from authsvc.accounts import browser_sessions
from authsvc.admin.cookies import signing_secrets
from authsvc.admin.pages import call_of_view, is_partial, may, see
from authsvc.admin.redirects import HOME, path_on_this_host, way_back
from authsvc.errors import Busy, Forbidden, Unauthenticated, invalid
from authsvc.policy.access import http_operation
from authsvc.policy.actors import Proof
from authsvc.policy.permissions import Operation
from authsvc.web.request_context import actor_for, catch_up, services, session_lifetime
from authsvc.web.tracing import TOKEN_KEY

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.policy.snapshot import UserPolicy

_SECRET = "id"  # noqa: S105 - where the cookie keeps the session's secret
_OFFER = "offer"
_OFFER_LASTS = timedelta(minutes=5)
# Everything from this host; what scripts and styles there are lie in files, so nothing inline is ever needed.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def check() -> AnyResponse | None:
    """Let a request for a page through, or answer it otherwise; runs before every view below `/admin`."""
    if request.endpoint and request.endpoint.endswith(".static"):
        return None
    catch_up()
    if not signing_secrets():
        raise Busy("the service is still starting; try again in a moment")
    if http_operation(request.method) is Operation.WRITE:
        _check_form()
    elif request.method == "GET" and TOKEN_KEY in request.environ:
        return _enter_with_token(request.environ[TOKEN_KEY])
    g.caller = _signed_in()
    if getattr(current_app.view_functions.get(request.endpoint or ""), "public", False):
        return None
    return _check_caller()


def begin_session(user: UserPolicy, token_digest: str | None = None) -> None:
    """Sign a browser in: a new secret, and nothing left of the session that the browser had before."""
    browser = request.headers.get("User-Agent", "")
    proof = Proof(token_digest=token_digest) if token_digest else Proof(password_hash=user.password_hash)
    secret = browser_sessions.begin(actor_for(user, proof), session_lifetime(), browser, token_digest)
    end_session(user)
    session[_SECRET] = secret


class Offer(NamedTuple):
    """A session that a token in the address could begin, in place of the session of another user."""

    user: UserPolicy
    token_digest: str
    leads_to: str


def offered() -> Offer | None:
    """Return the session that this browser was offered a short while ago; None if its token is not valid any more."""
    # The cookie is signed, so it says what was put there; a digest is no token and signs nobody in elsewhere.
    username, digest, leads_to, offered_at = session.get(_OFFER, ("", "", HOME, 0.0))
    now = datetime.now(UTC)
    user = services().policy.snapshot.users.get(username)
    until = user.tokens.get(digest) if user and user.enabled else None
    fresh = now.timestamp() - offered_at < _OFFER_LASTS.total_seconds()
    return Offer(user, digest, leads_to) if user and until and until > now and fresh else None


def end_session(user: UserPolicy) -> None:
    """Sign a browser out."""
    browser_sessions.sign_out(actor_for(user), session.get(_SECRET, ""))
    session.clear()


def form_token() -> str:
    """Return what a form must bring back to be believed to have been drawn here."""
    token: str = generate_csrf(secret_key=signing_secrets())
    return token


def protect(response: Response) -> Response:
    """Add the headers of a page."""
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


def _signed_in() -> UserPolicy | None:
    if _SECRET not in session:
        return None
    noted = not getattr(current_app.view_functions.get(request.endpoint or ""), "unattended", False)
    g.proof = browser_sessions.proof_of(session[_SECRET])
    username = browser_sessions.username_of(session[_SECRET], session_lifetime(), record_use=noted)
    user = services().policy.snapshot.users.get(username) if username else None
    return user if user and user.enabled else None


def _check_caller() -> AnyResponse | None:
    if g.caller is None:
        return _ask_to_sign_in()
    call = call_of_view()
    if call is None and request.url_rule is not None:
        raise Forbidden("this page does not say what it stands for")
    if call and not may(*call):
        raise Forbidden(f"you lack http {http_operation(call.method)} on {call.path}")
    return None


def _ask_to_sign_in() -> AnyResponse:
    if is_partial():
        return Response(status=401, headers={"HX-Redirect": url_for("sign_in.form")})
    wanted = _address() if request.method == "GET" else HOME
    return see(url_for("sign_in.form", redirect=wanted))


def _check_form() -> None:
    given = request.headers.get("X-CSRFToken") or request.form.get("csrf_token")
    try:
        validate_csrf(given, secret_key=signing_secrets(), time_limit=session_lifetime().absolute.total_seconds())
    except ValidationError:
        raise invalid("", "this page is out of date: reload it and try again") from None


def _enter_with_token(token: str) -> AnyResponse:
    """Sign in by a token that stood in the address, and lead on to an address without it.

    If another user is signed in, ask first: a link from elsewhere must not change under whose name somebody works.
    """
    wanted = request.args.get("redirect")
    leads_to = path_on_this_host(wanted) if wanted is not None else _address()
    try:
        user, digest = services().access.authenticate_token(token, datetime.now(UTC))
        present = _signed_in()
        if present and present.username != user.username:
            session[_OFFER] = (user.username, digest, leads_to, datetime.now(UTC).timestamp())
            return see(url_for("sign_in.ask_to_replace_session"))
        begin_session(user, digest)
    except Unauthenticated:
        return see(url_for("sign_in.form", failed="token"))
    return see(leads_to)


def _address() -> str:
    return way_back(request.path, request.query_string.decode("ascii", "replace"))
