"""The OpenAPI description, created without a database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from authsvc.api import docs
from authsvc.app import create_app
from authsvc.settings import Settings


def _describe() -> dict[str, Any]:
    nowhere = Settings(data_dir=Path("nowhere"), database_url="sqlite:///nowhere", bcrypt_cost=4)
    return docs.description(create_app(nowhere))


DESCRIPTION = _describe()
OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {
    (method.upper(), path): operation
    for path, methods in DESCRIPTION["paths"].items()
    for method, operation in methods.items()
}


def with_names(path: str) -> str:
    """Return a path with its parameters filled in; the named objects need not exist."""
    return re.sub(r"\{\w+\}", "somebody", path)
