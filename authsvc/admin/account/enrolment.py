"""The pages that set up a second factor, shown at a sign-in that requires one and from the page of the own account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import segno
from markupsafe import Markup

from authsvc.admin.pages import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flask import Response

    from authsvc.accounts.sign_in.second_factor import Enrolment
    from authsvc.errors import AuthsvcError


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
