"""The routes of the service, created once in each test process, because that takes longer than most tests."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING

from authsvc.app import assemble, create_routes

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

    from authsvc.settings import Settings

routes = cache(create_routes)


def app_for(settings: Settings) -> OpenAPI:
    """Return an app with parts of its own behind the shared routes, without its threads."""
    app = copy.copy(routes())
    app.extensions = dict(app.extensions)
    return assemble(app, settings)
