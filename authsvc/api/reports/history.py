"""Logins and denials over time, over REST."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from authsvc.activity import decision_stats
from authsvc.api.schemas import Moment, Query, View, noun, render

blueprint = noun("history", "Logins and denials over time")

_MAX_HOURS = int(decision_stats.KEPT.total_seconds()) // 3600


class HistoryQuery(Query):
    hours: int = Field(24, ge=1, le=_MAX_HOURS)


class BucketView(View):
    """The counts of one bucket, which starts at `at`; `denials` counts topics."""

    at: Moment
    logins: int
    denied_logins: int
    denials: int


class HistoryView(View):
    """Every bucket of the given hours, oldest first; the last one is not complete."""

    bucket_seconds: int
    buckets: list[BucketView]


@blueprint.get("/history", responses={200: HistoryView})
def get_history(query: HistoryQuery) -> dict[str, Any]:
    """Show the numbers of logins and denials of all workers and replicas."""
    buckets = [
        BucketView.model_validate(bucket, from_attributes=True) for bucket in decision_stats.last_hours(query.hours)
    ]
    return render(HistoryView(bucket_seconds=int(decision_stats.BUCKET.total_seconds()), buckets=buckets))
