"""The OpenAPI description, created without a database."""

from __future__ import annotations

import re
from typing import Any

from authsvc.api import docs
from tests.shared_routes import routes

DESCRIPTION: dict[str, Any] = docs.description(routes())
OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {
    (method.upper(), path): operation
    for path, methods in DESCRIPTION["paths"].items()
    for method, operation in methods.items()
}


def with_names(path: str) -> str:
    """Return a path with its parameters filled in; the named objects need not exist."""
    return re.sub(r"\{\w+\}", "somebody", path)
