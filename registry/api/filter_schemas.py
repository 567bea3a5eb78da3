"""Bodies that decide on all registrations that match a filter."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from authsvc.api.schemas import Body, Text, View
from authsvc.errors import InvalidInput
from registry import filters
from registry.api.schemas import DenyBody, Ids, a_text, this_side_of_the_calendar


def _network(text: str) -> str:
    try:
        return filters.check_network(text)
    except InvalidInput as error:
        raise ValueError(error.errors[0].message) from None


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(a_text), AfterValidator(this_side_of_the_calendar)]


class FilterBody(Body):
    """Which registrations; all fields that are given must fit, and at least one must be given."""

    username_pattern: Text | None = Field(None, min_length=1, max_length=64, examples=["press_*"])
    client_id_pattern: Text | None = Field(None, min_length=1, max_length=200, examples=["mqttjs_*"])
    address: Annotated[Text, AfterValidator(_network)] | None = Field(
        None, max_length=64, description="an IP address or a network", examples=["203.0.113.0/24"]
    )
    after: Time | None = Field(None, description="first seen at this time or later; RFC 3339")
    before: Time | None = Field(None, description="first seen before this time; RFC 3339")
    max_attempts: int | None = Field(None, ge=1, le=1_000_000_000, description="with at most this many attempts")

    @model_validator(mode="after")
    def is_not_empty(self) -> FilterBody:
        """Refuse an empty filter, which would match every registration."""
        try:
            self.filter()
        except InvalidInput as error:
            raise ValueError(error.errors[0].message) from None
        return self

    def filter(self) -> filters.Filter:
        """Return the filter that it spells."""
        return filters.Filter(**self.model_dump())


class DenyManyBody(DenyBody):
    """Either the ids of registrations, each decided on its own, or a filter for all pending ones that match."""

    ids: Ids = []
    filter: FilterBody | None = None

    @model_validator(mode="after")
    def has_ids_or_a_filter(self) -> DenyManyBody:
        """Ask for exactly one way to name registrations."""
        if bool(self.ids) == (self.filter is not None):
            raise ValueError("must have either ids or a filter")
        return self


class DeleteManyBody(Body):
    """A filter for registrations of one status; granted ones are never deleted in bulk."""

    filter: FilterBody
    status: Literal["pending", "denied", "expired"] = "pending"


class CountView(View):
    """How many registrations were decided."""

    count: int
