"""Files of unknown length: the API listener sends them while Flask makes them, and few at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from authsvc.web.asgi import ApiApplication
from tests.http.broker import RecordingConnections
from tests.http.wire import within

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from authsvc.broker.asgi import Message

CLIENT = ("192.0.2.1", 50_000)
PARTS = 500
THREADS = 8  # 2 files at a time


class Exports:
    """A Flask application with one file, and how many parts it has made; part `fails_at` fails."""

    def __init__(self, fails_at: int = 0) -> None:
        self.fails_at = fails_at
        self.made = 0
        self.ended = 0
        self.flask = Flask("exports")
        self.flask.config["MAX_CONTENT_LENGTH"] = 1000
        self.flask.add_url_rule("/file", view_func=self.file)
        self.flask.add_url_rule("/page", view_func=lambda: "a page")

    def file(self) -> Iterator[bytes]:
        try:
            for _ in range(PARTS):
                self.made += 1
                if self.made == self.fails_at:
                    raise OSError
                yield b"x" * 1000
        finally:
            self.ended += 1


async def get(api: ApiApplication, path: str, take: Callable[[Message], Awaitable[None]]) -> None:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "client": CLIENT,
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": [],
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    await api(scope, receive, take)


def test_file_is_made_while_it_is_sent() -> None:
    exports = Exports()
    api = ApiApplication(exports.flask, THREADS, RecordingConnections())
    made_when_taken, sent = [], 0

    async def take(message: Message) -> None:
        nonlocal sent
        made_when_taken.append(exports.made)
        sent += len(message.get("body", b""))

    asyncio.run(get(api, "/file", take))
    assert sent == PARTS * 1000
    # Besides the part that is sent, a2wsgi's queue has 10 parts, and Flask makes the next one.
    assert all(made <= taken + 12 for taken, made in enumerate(made_when_taken))
    assert exports.ended == 1


def test_client_that_does_not_read_a_file_stops_it_and_is_disconnected() -> None:
    exports, connections = Exports(), RecordingConnections()
    api = ApiApplication(exports.flask, THREADS, connections, answer_seconds=0.2)

    async def take(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    asyncio.run(get(api, "/file", take))
    assert exports.made < 20
    assert exports.ended == 1
    assert connections.calls[-1] == ("close", CLIENT)


def test_file_that_fails_is_not_completed_and_the_next_one_is_sent() -> None:
    exports = Exports(fails_at=30)
    api = ApiApplication(exports.flask, 2, RecordingConnections())  # 1 file at a time
    sent: list[Message] = []

    async def take(message: Message) -> None:
        sent.append(message)

    with pytest.raises(OSError):
        asyncio.run(get(api, "/file", take))
    assert all(message.get("more_body") for message in sent[1:])
    sent.clear()
    asyncio.run(get(api, "/file", take))
    assert sum(len(message.get("body", b"")) for message in sent) == PARTS * 1000


def test_files_beyond_a_quarter_of_the_threads_are_refused_and_pages_are_not() -> None:
    exports = Exports()
    api = ApiApplication(exports.flask, THREADS, RecordingConnections())
    refused: list[Any] = []
    answered: list[Any] = []

    async def download_two_and_ask_for_more() -> None:
        go_on = asyncio.Event()

        async def wait(message: Message) -> None:
            if message["type"] == "http.response.body":
                await go_on.wait()

        async def refuse(message: Message) -> None:
            refused.append(message)

        async def answer(message: Message) -> None:
            answered.append(message)

        downloads = [asyncio.create_task(get(api, "/file", wait)) for _ in range(2)]
        assert await asyncio.to_thread(within, 10, lambda: exports.made >= 2 * 10)
        await get(api, "/file", refuse)
        await get(api, "/page", answer)
        go_on.set()
        await asyncio.gather(*downloads)
        await get(api, "/file", answer)

    asyncio.run(download_two_and_ask_for_more())
    assert [message.get("status") for message in refused] == [503, None]
    assert answered[0]["status"] == 200
    assert answered[1]["body"] == b"a page"
    assert sum(len(message.get("body", b"")) for message in answered[2:]) == PARTS * 1000
    assert exports.ended == 4


def test_disconnected_client_blocks_no_thread() -> None:
    exports = Exports()
    api = ApiApplication(exports.flask, 4, RecordingConnections())
    answered: list[Any] = []

    async def disconnect_four_times_and_ask_for_a_page() -> None:
        async def wait(message: Message) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        async def answer(message: Message) -> None:
            answered.append(message)

        for _ in range(4):
            made = exports.made
            download = asyncio.create_task(get(api, "/file", wait))
            # a2wsgi's queue has 10 parts: Flask waits.
            assert await asyncio.to_thread(within, 10, lambda: exports.made >= made + 10)  # noqa: B023
            download.cancel()
            await asyncio.wait([download], timeout=10)
            assert download.cancelled()
        await asyncio.wait_for(get(api, "/page", answer), 10)

    asyncio.run(disconnect_four_times_and_ask_for_a_page())
    assert answered[1]["body"] == b"a page"
    assert exports.ended == 4
