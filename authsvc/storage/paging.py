"""One page of a list, as every list use case returns it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from authsvc.storage.database import is_sqlite, session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items out of `total`; pages count from 1."""

    items: list[T]
    page: int
    per_page: int
    total: int


def in_order(query: Any, sort: str, columns: Mapping[str, Any], unique: Any) -> Any:
    """Return the query sorted by the column of this name; `-` in front of the name means descending.

    Rows without a value come first when ascending. `unique` decides between equal values. If it is unique by itself,
    descending is the exact opposite of ascending: an index of both columns serves both.
    """
    column, descending = columns[sort.removeprefix("-")], sort.startswith("-")
    first = column.desc() if descending else column.asc()
    if column.null and not is_sqlite():  # for which a missing value is the smallest already, as its indexes have it
        first = column.desc(nulls="LAST") if descending else column.asc(nulls="FIRST")
    if not (unique.unique or unique.primary_key):
        return query.order_by(first, unique)
    return query.order_by(first, unique.desc() if descending else unique.asc())


def fetch_page(
    query: Any, page: int, per_page: int, *, convert: Callable[[list[Any]], Iterable[T]], counted: Any = None
) -> Page[T]:
    """Return one page of an ordered query; `convert` turns its rows into items and may read from the database.

    `counted` is a query with as many rows that is faster to count.
    """
    with session():
        total = (query if counted is None else counted).count()
        return Page(list(convert(list(query.paginate(page, per_page)))), page, per_page, total)
