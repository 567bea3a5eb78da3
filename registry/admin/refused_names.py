"""The page of usernames that cannot register."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Blueprint, request

from authsvc.admin.forms import validated
from authsvc.admin.pages import authorize_as, render
from authsvc.web.request_context import services
from registry.api import schemas
from registry.mqtt_registration import refused_names

if TYPE_CHECKING:
    from flask import Response

blueprint = Blueprint("refused", __name__, url_prefix="/registry/refused-names")


@blueprint.get("")
@authorize_as("GET", "/api/client-registry/refused-names")
def show() -> Response:
    """List the usernames that cannot register, the latest attempt first."""
    query = validated(schemas.PageQuery, **request.args.to_dict())
    found = refused_names.search(query.page, query.per_page)
    allowed = services().settings.registration_usernames
    return render("registry/refused_names.html", found=found, allowed=allowed)
