"""Connected MQTT clients over REST: list and disconnect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from authsvc.activity import live_clients
from authsvc.api.schemas import (
    Moment,
    PageView,
    SearchQuery,
    Text,
    TimeInQuery,
    View,
    noun,
    render,
    render_page,
    sort_schema,
)
from authsvc.credentials.usernames import MAX_USERNAME
from authsvc.web.request_context import actor

if TYPE_CHECKING:
    from authsvc.activity.live_clients import LiveClientRecord

SortName = Annotated[live_clients.ClientSort, sort_schema(live_clients.ClientSort)]

blueprint = noun("clients", "MQTT clients that are connected now, at the brokers with authsvc's own plugin")


class ClientPath(BaseModel):
    """One level of the path each; a slash in a name is sent as `%2F`."""

    broker: Text = Field(max_length=200)
    client_id: Text = Field(max_length=200, alias="clientId")


class ClientQuery(SearchQuery):
    search: Text = Field("", max_length=200, description="part of a username, client id or address")
    broker: Text = Field("", max_length=200, description="only clients of this broker")
    username: Text = Field("", max_length=MAX_USERNAME, description="only clients of this user")
    credential: Literal["password", "token", "certificate"] | None = Field(
        None, description="only clients that logged in with this"
    )
    connected_after: TimeInQuery | None = Field(None, description="only clients that connected at this time or later")
    connected_before: TimeInQuery | None = Field(None, description="only clients that connected before this time")
    sort: SortName = Field("-connectedAt", description="- in front means descending")

    def wanted(self) -> live_clients.LiveClientFilter:
        return live_clients.LiveClientFilter(
            self.broker,
            self.username,
            self.search,
            self.credential or "",
            self.connected_after,
            self.connected_before,
        )


class ClientView(View):
    """A connected client; `credential` is what it logged in with: `password`, `token` or `certificate`."""

    broker: str
    client_id: str
    username: str
    address: str | None
    protocol: str
    connected_at: Moment
    credential: str


class ClientPage(PageView[ClientView]):
    pass


class ClientDisconnectView(View):
    """Whether the broker has reported within 2 seconds that the connection ended."""

    broker: str
    client_id: str
    disconnected: bool


@blueprint.get("/clients", responses={200: ClientPage})
def list_clients(query: ClientQuery) -> dict[str, Any]:
    """List connected clients, the latest connection first unless `sort` says otherwise."""
    found = live_clients.search(query.wanted(), query.page, query.per_page, query.sort)
    return render_page(found, map(_view, found.items))


@blueprint.post("/clients/<name:broker>/<name:clientId>/disconnect", responses={200: ClientDisconnectView})
def disconnect_client(path: ClientPath) -> dict[str, Any]:
    """End the connection of a client, which can reconnect if it may; 404 `client-not-connected` without one."""
    disconnected = live_clients.disconnect(actor(), path.broker, path.client_id)
    return render(ClientDisconnectView(broker=path.broker, client_id=path.client_id, disconnected=disconnected))


def _view(record: LiveClientRecord) -> ClientView:
    return ClientView.of(record)
