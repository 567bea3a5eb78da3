"""The state of the service over REST."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from authsvc.api.schemas import Moment, View, noun, render
from authsvc.record_json import json_fields
from authsvc.web.request_context import services
from authsvc.web.status import status_here

blueprint = noun("status", "Versions, database, policy, authorities, listeners, brokers and settings")


class DatabaseView(View):
    """The database; `version` and `migration`, the latest one that was applied, are null if it does not answer."""

    kind: str
    reachable: bool
    version: str | None
    migration: str | None


class PolicyView(View):
    """The policy in the memory of the process that answered."""

    version: int
    age_seconds: float
    stale: bool = Field(description="whether this or a broker process has not refreshed its policy for 5 seconds")
    users: int


class WorkerView(View):
    """A process that answers at a listener; `addresses` are those that it listens on."""

    pid: int
    addresses: list[str]
    started_at: Moment


class ListenerView(View):
    """A listener: its settings, and the processes of this data directory that run it."""

    name: Literal["api", "broker"]
    configured_address: str
    configured_processes: int
    processes: list[WorkerView] = Field(
        description="the processes that run now; a listener of another container or machine has none here"
    )


class AuthorityView(View):
    """A trusted certificate authority; `retires_at` is null for the one that signs."""

    id: int
    subject: str
    not_after: Moment
    created_at: Moment
    retires_at: Moment | None
    crl_number: int
    crl_next_update: Moment | None


class BrokerView(View):
    """A broker with authsvc's plugin that has reported in the last hour; `clients` is 0 if it is silent now."""

    name: str
    plugin_version: str
    clients: int
    reported_at: Moment
    is_live: bool


class SettingView(View):
    """A setting; `value` is null if it is secret or not set."""

    name: str
    value: str | None
    secret: bool
    is_set: bool


class StatusView(View):
    """The state of the service."""

    version: str
    python: str
    database: DatabaseView
    policy: PolicyView
    listeners: list[ListenerView]
    broker_processes_follow: bool = Field(description="whether each broker process has loaded the current policy")
    authorities: list[AuthorityView]
    brokers: list[BrokerView]
    settings: list[SettingView]


@blueprint.get("/status", responses={200: StatusView})
def get_status() -> dict[str, Any]:
    """Show the state of the service; settings that are secret have no value."""
    return render(StatusView.model_validate(json_fields(status_here(services()))))
