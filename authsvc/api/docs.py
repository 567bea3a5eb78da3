"""The OpenAPI document and Swagger UI, which loads no file from another host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import flask_openapi3_swagger
from flask import Blueprint, Response, current_app, jsonify, render_template

from authsvc.api import examples
from authsvc.policy_file import document as policy_file
from authsvc.policy_file.document import SCHEMA_PATH
from authsvc.web.request_context import public

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI

_SWAGGER = Path(flask_openapi3_swagger.__file__).parent / "templates" / "swagger"
# Swagger UI needs inline styles and `data:` images; all its scripts come from this service.
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)

blueprint = Blueprint(
    "docs",
    __name__,
    url_prefix="/api",
    template_folder="templates",
    static_folder="static",
    static_url_path="/docs/static",
)
swagger = Blueprint("swagger", __name__, static_folder=str(_SWAGGER), static_url_path="/docs/swagger")
blueprint.register_blueprint(swagger)


def description(app: OpenAPI) -> dict[str, Any]:
    """Return the OpenAPI document of the app, with examples."""
    return examples.add_to(app.api_doc)


@blueprint.get("/openapi.json")
@public
def openapi() -> Response:
    return jsonify(description(cast("OpenAPI", current_app)))


@blueprint.get(SCHEMA_PATH.removeprefix("/api"))
@public
def policy_schema() -> Response:
    response = jsonify(policy_file.json_schema())
    # An editor in a browser may be on another site; the schema is the same for everyone.
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.content_type = "application/schema+json"
    return response


@blueprint.get("/docs")
@public
def page() -> Response:
    response = Response(render_template("docs.html"))
    response.headers["Content-Security-Policy"] = _CONTENT_SECURITY_POLICY
    return response
