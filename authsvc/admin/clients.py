"""Connected MQTT clients: list and disconnect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Response, flash, request, url_for

from authsvc.activity import live_clients
from authsvc.admin.forms import validated, validated_query
from authsvc.admin.pages import (
    ApiCall,
    NavigationEntry,
    authorize_as,
    may_call,
    page_blueprint,
    redirect_if_readable,
    redirect_to,
    render,
)
from authsvc.api.clients import ClientPath, ClientQuery
from authsvc.errors import NotFound
from authsvc.policy.topics import path_level
from authsvc.web.escape import escape_invisible
from authsvc.web.redirects import path_on_this_host
from authsvc.web.request_context import actor

if TYPE_CHECKING:
    from werkzeug.wrappers import Response as AnyResponse

    from authsvc.activity.live_clients import LiveClientRecord

blueprint = page_blueprint("clients_page", __name__)
NAVIGATION = NavigationEntry(5, "Clients", "clients_page.list_", ApiCall("GET", "/api/clients"))


@blueprint.get("/clients")
@authorize_as("GET", "/api/clients")
def list_() -> Response:
    """List connected clients, the latest connection first, with the brokers that report them."""
    query, filters = validated_query(ClientQuery)
    return render(
        "admin/clients.html",
        found=live_clients.search(query.wanted(), query.page, query.per_page, query.sort),
        brokers=live_clients.brokers(),
        query=query,
        keep=filters,
        here=url_for("clients_page.list_", **filters, page=str(query.page)),  # type: ignore[arg-type]
        may_disconnect=may_disconnect,
    )


@blueprint.post("/clients/<name:broker>/<name:client_id>/disconnect")
@authorize_as("POST", "/api/clients/{broker}/{client_id}/disconnect")
def disconnect(broker: str, client_id: str) -> AnyResponse:
    """End the connection of a client, and redirect to the page in the field `back`, by default to the list."""
    path = validated(ClientPath, broker=broker, clientId=client_id)
    back = request.form.get("back") and path_on_this_host(request.form["back"])
    flash(*_disconnect_message(path))
    return redirect_to(back) if back else redirect_if_readable("/api/clients", "clients_page.list_")


def may_disconnect(client: LiveClientRecord) -> bool:
    """Return whether the signed-in user may disconnect this client."""
    return may_call("POST", f"/api/clients/{path_level(client.broker)}/{path_level(client.client_id)}/disconnect")


def _disconnect_message(path: ClientPath) -> tuple[str, str]:
    """Disconnect the client, and return the message about it and its category."""
    shown = escape_invisible(path.client_id)
    try:
        disconnected = live_clients.disconnect(actor(), path.broker, path.client_id)
    except NotFound:
        return f"{shown} was not connected any more.", "warn"
    if not disconnected:
        return f"The broker has not reported within 2 seconds that the connection of {shown} ended.", "warn"
    return f"{shown} was disconnected. It can reconnect unless its user is disabled.", "message"
