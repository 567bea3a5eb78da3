"""The pages that set up a second factor, shown at a sign-in that requires one and from the page of the own account.

Only the browser that has begun a set-up goes on with it. Otherwise somebody who knows the password could copy the
secret while its owner scans it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import segno
from flask import session
from markupsafe import Markup

from authsvc.admin.pages import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask import Response

    from authsvc.accounts.sign_in.second_factor import Enrolment
    from authsvc.errors import AuthsvcError

_DIGEST = "enrolment"


def remember(begun: Enrolment) -> None:
    """Note in the signed cookie of this browser that it has begun this set-up."""
    session[_DIGEST] = _digest(begun)


def own(begun: Enrolment | None) -> Enrolment | None:
    """Return the set-up if this browser has begun it; None if there is none, or another browser has begun it."""
    return begun if begun and session.get(_DIGEST) == _digest(begun) else None


def render_set_up(enrolment: Enrolment, action: str, error: AuthsvcError | None) -> Response:
    """Return the page with the QR code, whose form sends the first code to the URL `action`."""
    # The code is drawn by attributes and without scripts, as the content security policy demands.
    drawn = segno.make(enrolment.uri, micro=False).svg_inline(scale=5, light="#fff", dark="#000")
    secret = " ".join(enrolment.secret[start : start + 4] for start in range(0, len(enrolment.secret), 4))
    qr_code = Markup(drawn)  # noqa: S704 - an SVG of segno
    return render("admin/second_factor.html", error=error, qr_code=qr_code, secret=secret, action=action)


def render_recovery_codes(recovery_codes: Sequence[str], leads_to: str) -> Response:
    """Return the page with the recovery codes, which is shown once, and a link to go on."""
    return render("admin/recovery_codes.html", recovery_codes=recovery_codes, leads_to=leads_to)


def _digest(begun: Enrolment) -> str:
    return hashlib.sha256(begun.secret.encode()).hexdigest()
