"""A page of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items out of `total`; pages count from 1."""

    items: list[T]
    page: int
    per_page: int
    total: int
