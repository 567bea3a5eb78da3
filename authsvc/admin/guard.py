"""Access to the pages: browser sessions, CSRF tokens, and the http permission of the API call behind each page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from flask import Response, current_app, g, request, session, url_for
from flask_wtf.csrf import generate_csrf, validate_csrf
from wtforms import ValidationError

from authsvc.accounts import browser_sessions
from authsvc.accounts.sign_in.methods import How, Method, Missing, SignIn
from authsvc.admin.cookies import signing_secrets
from authsvc.admin.pages import is_htmx_request, may_call, redirect_to, required_api_call
from authsvc.errors import Busy, Forbidden, Unauthenticated, invalid
from authsvc.policy.access import http_operation
from authsvc.policy.actors import Proof
from authsvc.policy.permissions import Operation
from authsvc.web.redirects import HOME, path_on_this_host, return_path
from authsvc.web.request_context import actor_for, catch_up, is_page, services, session_lifetime
from authsvc.web.tracing import TOKEN_KEY

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.policy.snapshot import UserPolicy

_SESSION_SECRET = "id"  # noqa: S105 - the name of a key in the cookie
_OFFER = "offer"
_OFFER_LASTS = timedelta(minutes=5)
# All scripts and styles are files on this host, so no inline code is allowed.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def check_request() -> AnyResponse | None:
    """Return None if the view may run, otherwise the response instead of it; checks requests below `/admin` only."""
    if not is_page(request.path) or (request.endpoint and request.endpoint.endswith(".static")):
        return None
    catch_up()
    if not signing_secrets():
        raise Busy("the service is still starting; try again in a few seconds")
    if http_operation(request.method) is Operation.WRITE:
        _check_form_token()
    elif request.method == "GET" and TOKEN_KEY in request.environ:
        return _sign_in_with_token(request.environ[TOKEN_KEY])
    g.caller = _signed_in_user()
    return None if _is_marked("public") else _check_permission()


def begin_session(signed_in: SignIn, id_token: str | None = None) -> None:
    """Sign a browser in with a new session secret, and end the session that the browser had before.

    `Unauthenticated` if the sign-in still needs a second factor.
    """
    if signed_in.missing is not Missing.NOTHING:
        raise Unauthenticated("sign in with the second factor")
    author, browser = actor_for(signed_in.user, signed_in.proof), request.headers.get("User-Agent", "")
    secret = browser_sessions.begin(author, signed_in.how, session_lifetime(), browser, id_token)
    end_session(signed_in.user)
    session[_SESSION_SECRET] = secret


class SessionOffer(NamedTuple):
    """The sign-in by a token in the URL, waiting for confirmation because another user is signed in."""

    sign_in: SignIn
    leads_to: str


def session_offer() -> SessionOffer | None:
    """Return the offer made to this browser within the last 5 minutes; None if its token is no longer valid."""
    # The cookie is signed, so its content can be trusted. A digest cannot be used as a token.
    username, digest, leads_to, offered_at = session.get(_OFFER, ("", "", HOME, 0.0))
    now = datetime.now(UTC)
    user = services().policy.snapshot.users.get(username)
    until = user.tokens.get(digest) if user and user.enabled else None
    fresh = now.timestamp() - offered_at < _OFFER_LASTS.total_seconds()
    if not (user and until and until > now and fresh):
        return None
    return SessionOffer(SignIn(user, How(Method.TOKEN), Proof(token_digest=digest)), leads_to)


def end_session(user: UserPolicy) -> str | None:
    """End the session of this browser; return the ID token with which it began, as `browser_sessions.begin` got it."""
    id_token = browser_sessions.sign_out(actor_for(user), session.get(_SESSION_SECRET, ""))
    session.clear()
    return id_token


def present_session_id() -> str | None:
    """Return the id of the session of this browser."""
    return browser_sessions.id_of(session.get(_SESSION_SECRET, ""))


def form_token() -> str:
    """Return the CSRF token for a form of this browser session."""
    token: str = generate_csrf(secret_key=signing_secrets())
    return token


def add_security_headers(response: Response) -> Response:
    if is_page(request.path):
        response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


def _is_marked(mark: str) -> bool:
    return getattr(current_app.view_functions.get(request.endpoint or ""), mark, False)


def _signed_in_user() -> UserPolicy | None:
    if _SESSION_SECRET not in session:
        return None
    g.proof = browser_sessions.proof_of(session[_SESSION_SECRET])
    noted = not _is_marked("polled")
    username = browser_sessions.username_of(session[_SESSION_SECRET], session_lifetime(), record_use=noted)
    user = services().policy.snapshot.users.get(username) if username else None
    return user if user and user.enabled else None


def _check_permission() -> AnyResponse | None:
    if g.caller is None:
        return _redirect_to_sign_in()
    call = required_api_call()
    if call is None and request.url_rule is not None:
        raise Forbidden("this page names no API call that authorizes it; please report this as a bug")
    if call and not may_call(*call):
        raise Forbidden(
            f"your account needs the permission `http {http_operation(call.method)} {call.path}` to do this"
        )
    return None


def _redirect_to_sign_in() -> AnyResponse:
    if is_htmx_request():
        return Response(status=401, headers={"HX-Redirect": url_for("sign_in.form")})
    wanted = _return_path() if request.method == "GET" else HOME
    return redirect_to(url_for("sign_in.form", redirect=wanted))


def _check_form_token() -> None:
    token = request.headers.get("X-CSRFToken") or request.form.get("csrf_token")
    try:
        validate_csrf(token, secret_key=signing_secrets(), time_limit=session_lifetime().absolute.total_seconds())
    except ValidationError:
        raise invalid("", "this form is out of date; reload the page and try again") from None


def _sign_in_with_token(token: str) -> AnyResponse:
    """Sign in with an API token from the URL, and redirect to a URL without it.

    If another user is signed in, ask first: a link from another site must not change the account somebody works with.
    """
    wanted = request.args.get("redirect")
    leads_to = path_on_this_host(wanted) if wanted is not None else _return_path()
    try:
        signed_in = services().sign_ins.with_token(token)
        username, present = signed_in.user.username, _signed_in_user()
        if present and present.username != username:
            digest = signed_in.proof.token_digest
            session[_OFFER] = (username, digest, leads_to, datetime.now(UTC).timestamp())
            return redirect_to(url_for("sign_in.replace_session_form"))
        begin_session(signed_in)
    except Unauthenticated:
        return redirect_to(url_for("sign_in.form", failed="token"))
    return redirect_to(leads_to)


def _return_path() -> str:
    return return_path(request.path, request.query_string.decode("ascii", "replace"))
