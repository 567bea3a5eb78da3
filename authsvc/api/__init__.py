"""The REST API: one module per noun, each with its schemas and a thin layer of views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask_openapi3.models.info import Info

from authsvc import __version__
from authsvc.api import (
    account,
    authentication,
    browser_sessions,
    certificates,
    clients,
    docs,
    notifications,
    roles,
    session,
    tokens,
    users,
)
from authsvc.api.policy import batches, imports
from authsvc.api.reports import audit, denials, history, status
from authsvc.api.schemas import Problem
from authsvc.web import path_names

if TYPE_CHECKING:
    from flask_openapi3.openapi import OpenAPI
    from flask_openapi3.types import SecuritySchemesDict

__all__ = ["INFO", "SECURITY_SCHEMES", "Problem", "register"]

INFO = Info(
    title="authsvc",
    version=__version__,
    description="Access control for Mosquitto: users, roles, permissions, API tokens and the audit trail.",
)
SECURITY_SCHEMES: SecuritySchemesDict = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "tokenInAddress": {"type": "apiKey", "in": "query", "name": "apiToken"},
    "password": {"type": "http", "scheme": "basic"},
}


def register(app: OpenAPI) -> None:
    """Add the views of every module to the app."""
    path_names.register(app)
    authentication.register(app)
    for module in (
        *(session, account, tokens, browser_sessions, users, batches, imports),
        *(roles, clients, certificates, notifications),
        *(audit, denials, history, status),
    ):
        app.register_api(module.blueprint)
    app.register_blueprint(docs.blueprint)
