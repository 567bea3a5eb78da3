"""One page of a list, as every list use case returns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from authsvc.storage.database import session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items out of `total`; pages count from 1."""

    items: list[T]
    page: int
    per_page: int
    total: int


def fetch_page(query: Any, page: int, per_page: int, *, convert: Callable[[list[Any]], Iterable[T]]) -> Page[T]:
    """Return one page of an ordered query; `convert` turns its rows into items and may read from the database."""
    with session():
        return Page(list(convert(list(query.paginate(page, per_page)))), page, per_page, query.count())
