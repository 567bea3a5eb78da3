"""The routes of the plugin for Mosquitto, independent of the HTTP server: a body in, an `Answer` out."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from authsvc import __version__
from authsvc.broker.goauth_protocol import json_answer
from authsvc.broker.plugin_protocol import (
    MalformedRequest,
    first_line,
    parse_report,
    parse_stream_request,
    parse_usernames,
)
from authsvc.observability import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from authsvc.broker.change_streams import ChangeStreams
    from authsvc.broker.goauth_protocol import Answer
    from authsvc.broker.plugin_protocol import PluginReport, StreamRequest, UserStates
    from authsvc.policy.access import RecordClientId
    from authsvc.policy.broker_report import BrokerReport
    from authsvc.policy.decision import Denial

log = structlog.get_logger()

_STATES_AT_ONCE = 10
_REPORT_THREADS = 2
_STORED = b'{"ok":true}'
_NOT_STORED = b'{"ok":false,"error":"the report could not be stored; send it again"}'


class ReportReceivers(NamedTuple):
    """Where the content of a report goes. `store_report` may wait for the database; the others only note in memory."""

    store_report: Callable[[BrokerReport], object]
    record_client_id: RecordClientId
    record_denial: Callable[[Denial], object]
    count_dropped_denials: Callable[[int], object]


class PluginRoutes:
    """Answers the requests of plugins that have proved to know the webhook secret; it never raises."""

    def __init__(self, states: UserStates, streams: ChangeStreams, receivers: ReportReceivers) -> None:
        self._states = states
        self._streams = streams
        self._receivers = receivers
        self._threads = ThreadPoolExecutor(_REPORT_THREADS, "reports")
        self._failing = False
        self._waiting: dict[object, float] = {}

    async def users(self, body: bytes) -> Answer:
        """Return the states of the requested users."""
        try:
            usernames = parse_usernames(body)
        except MalformedRequest as error:
            return malformed(error)
        revision, states = self._states.revision, []
        for at, username in enumerate(usernames):
            states.append(self._states.of(username))
            if at % _STATES_AT_ONCE == 0:
                await asyncio.sleep(0)  # users with thousands of rules must not delay webhooks
        return json_answer(HTTPStatus.OK, b'{"version":%d,"users":[%s]}' % (revision, b",".join(states)))

    async def report(self, body: bytes) -> Answer:
        """Return whether a report was stored. A thread reads and stores it."""
        report = object()
        self._waiting[report] = monotonic()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.store, body)
        finally:
            del self._waiting[report]

    @property
    def report_age(self) -> float:
        """Seconds that the oldest report has waited to be stored; 0 without one."""
        return max((monotonic() - received for received in list(self._waiting.values())), default=0.0)

    def store(self, body: bytes) -> Answer:
        """Store a report and return the answer; this may wait for the database."""
        try:
            report = parse_report(body)
        except MalformedRequest as error:
            metrics.count_report("malformed")
            return malformed(error)
        try:
            self._receivers.store_report(report.broker)
        except Exception as error:  # noqa: BLE001 - the plugin sends it again, whatever the reason
            # The message of the exception may contain a client id, so only its type is logged.
            if not self._failing:
                log.warning("reports of brokers cannot be stored", error=type(error).__name__)
            self._failing = True
            metrics.count_report("failed")
            return json_answer(HTTPStatus.OK, _NOT_STORED)
        self._failing = False
        metrics.count_report("stored")
        self._note(report)
        return json_answer(HTTPStatus.OK, _STORED)

    def _note(self, report: PluginReport) -> None:
        for client in report.broker.connected:  # also those with a certificate, whose login nobody asks about
            self._receivers.record_client_id(client.username, client.client_id, True)
        for login in report.logins:
            self._receivers.record_client_id(login.username, login.client_id, True)
        for denial in report.denials:
            self._receivers.record_denial(denial)
        if report.dropped:
            self._receivers.count_dropped_denials(report.dropped)

    def stream_request(self, parameters: Mapping[str, str]) -> StreamRequest | Answer:
        """Return the query parameters of a request for a change stream, or the answer that refuses them."""
        try:
            return parse_stream_request(parameters)
        except MalformedRequest as error:
            return malformed(error)

    async def changes(self, request: StreamRequest, left: asyncio.Future[Any]) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a change stream until the client has left."""
        with self._streams.open(request.boot) as stream:
            log.info("the change stream of a broker begins", broker=request.name)
            left.add_done_callback(lambda _: stream.wake())
            yield first_line(self._states.revision, __version__)
            while True:
                lines = await stream.next_lines()
                if left.done():
                    break
                yield lines
        log.info("the change stream of a broker has ended", broker=request.name)


def malformed(error: MalformedRequest) -> Answer:
    """Return the answer to a request with this wrong field."""
    return json_answer(HTTPStatus.BAD_REQUEST, json.dumps({"ok": False, "error": f"malformed: {error}"}).encode())
