"""A reader who follows a document: runs its `sh` blocks in one directory, one after the other, as a user would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Self

from tests.broker import Mosquitto, build_authsvc_plugin, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TYPED_PASSWORD = "a new passphrase of the reader"
_PATIENCE = 60.0
_MARK = re.compile(r"<!-- not run: (?P<reason>\S.*?) -->\s*$", re.DOTALL)
_FENCE = re.compile(r"^(?P<indent> *)```sh\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What a document promises about one of its blocks, which starts with the words `begins`.

    `prints` are parts of its output, or of that of a program which an earlier block left running; one that is listed
    twice is printed twice. `statuses` are the exit statuses of its commands, 0 unless given. `files` exist afterwards,
    and the broker's log contains `broker_logs`. If `lasts` is true, its last command runs until it is interrupted: the
    reader goes on in another terminal once everything is printed. With `interrupted` the reader ends it then.
    """

    begins: str
    prints: tuple[str, ...] = ()
    prints_not: tuple[str, ...] = ()
    statuses: tuple[int, ...] | None = None
    lasts: bool = False
    interrupted: bool = False
    files: tuple[str, ...] = ()
    broker_logs: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundBlock:
    """A block as a document has it; `not_run` is the reason in the HTML comment before it, if there is one."""

    text: str
    not_run: str | None


def blocks_of(document: str) -> list[FoundBlock]:
    """Return the `sh` blocks of a document of this checkout."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text[: fence.start()])
        found.append(FoundBlock(dedent(fence["text"]), mark and mark["reason"]))
    return found


def commands_of(block: str) -> Iterator[str]:
    """Yield the commands of a block: lines, joined until the shell takes them as complete."""
    lines: list[str] = []
    for line in block.splitlines():
        lines.append(line)
        text = "\n".join(lines)
        if not line.endswith("\\") and _is_complete(text):
            if text.strip():
                yield text
            lines = []
    assert not lines, f"incomplete command: {lines}"


def _is_complete(command: str) -> bool:
    return subprocess.run(["sh", "-n"], check=False, input=command, text=True, capture_output=True).returncode == 0


@dataclass
class Reader:
    """Runs commands in an empty directory that has the checkout's `.venv`; ends what it started with the `with` block.

    `make run` and `make broker` run what these targets run, from this checkout but in the reader's directory.
    """

    directory: Path
    api: int = field(default_factory=free_port)
    webhooks: int = field(default_factory=free_port)
    second_api: int = field(default_factory=free_port)
    second_webhooks: int = field(default_factory=free_port)
    mqtt: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self._variables: list[str] = []
        self._started: list[subprocess.Popen[bytes]] = []
        self._transcript = self.directory / "transcript"
        self._transcript.touch()
        self._answers = self.directory / "answers"
        self._answers.write_text(f"{TYPED_PASSWORD}\n" * 2)
        commands = self.directory / ".venv" / "bin"
        commands.mkdir(parents=True)
        (commands / "authsvc").symlink_to(Path(sys.executable).parent / "authsvc")
        self._broker: Mosquitto | None = None
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUTHSVC_")}
        self._environment = inherited | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "AUTHSVC_BIND": f"127.0.0.1:{self.api}",
            "AUTHSVC_BROKER_BIND": f"127.0.0.1:{self.webhooks}",
            # A busy machine would otherwise answer `verifying`, as the README says.
            "AUTHSVC_BCRYPT_COST": "4",
            "AUTHSVC_CONNECT_BUDGET_MS": "4000",
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.directory),
        }

    @property
    def replaced(self) -> dict[str, str]:
        """What the reader types in place of a document's words."""
        return {
            "make run": ".venv/bin/authsvc serve",
            "127.0.0.1:8080": f"127.0.0.1:{self.api}",
            "127.0.0.1:8070": f"127.0.0.1:{self.webhooks}",
            "127.0.0.1:8081": f"127.0.0.1:{self.second_api}",
            "127.0.0.1:8071": f"127.0.0.1:{self.second_webhooks}",
            "0.0.0.0:8070": f"0.0.0.0:{self.webhooks}",
            "https://auth.example": f"http://127.0.0.1:{self.api}",
            "sleep 1": "sleep 3",  # a busy machine
            "mosquitto_sub -": f"mosquitto_sub -p {self.mqtt} -",
            "mosquitto_pub -": f"mosquitto_pub -p {self.mqtt} -",
            "/etc/mosquitto/pki": "pki",
            "/etc/press": "press",
            "systemctl reload mosquitto": "touch reloaded",
            "PASSWORD-FROM-THE-FIRST-START": self._first_password(),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._broker:
            self._broker.stop()
        for process in self._started:
            self._interrupt(process)

    def follow(self, text: str, promise: Block) -> None:
        """Run a block and check what the document promises about it."""
        begun = self._transcript.stat().st_size
        if text.strip() == "make broker":
            self._start_broker()
            return
        *commands, last = commands_of(self._typed(text))
        process = self._start([*commands, last] if not promise.lasts else commands, last if promise.lasts else "")
        if not promise.lasts:
            process.wait(_PATIENCE)
        self._wait_for(promise, begun)
        for words in promise.broker_logs:
            assert self._broker
            self._broker.wait_for_log(words)
        if promise.interrupted:
            self._interrupt(process)

    def _typed(self, text: str) -> str:
        for words, typed in self.replaced.items():
            text = text.replace(words, typed)
        return text

    def _start(self, commands: list[str], lasting: str) -> subprocess.Popen[bytes]:
        """Run commands, each with its exit status in the transcript, and the lasting one, which ends the shell."""
        self._variables += [line for line in commands if re.fullmatch(r"[A-Z_]+=\S+", line)]
        script = "\n".join(
            [
                *self._variables,
                *(f"{{\n{command}\n}} < answers; echo '[exit '$?']'" for command in commands),
                lasting and f"exec env {lasting}",
            ]
        )
        with self._transcript.open("ab") as transcript:
            process = subprocess.Popen(
                ["sh", "-c", script],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=transcript,
                stderr=transcript,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def _wait_for(self, promise: Block, begun: int) -> None:
        deadline = time.monotonic() + (_PATIENCE if promise.lasts else 10)
        expected = [self._typed(words) for words in promise.prints]
        while True:
            printed = self._transcript.read_bytes()[begun:].decode(errors="replace")
            missing = [words for words in expected if printed.count(words) < expected.count(words)]
            missing += [name for name in promise.files if not (self.directory / name).exists()]
            if not missing:
                break
            assert time.monotonic() < deadline, f"{promise.begins}: {missing} is missing in:\n{printed}"
            time.sleep(0.05)
        assert not [words for words in promise.prints_not if words in printed], printed
        statuses = [int(status) for status in re.findall(r"\[exit (\d+)\]", printed)]
        wanted = list(promise.statuses) if promise.statuses else [0] * len(statuses)
        assert statuses == wanted, f"{promise.begins}: {printed}"

    def _start_broker(self) -> None:
        config = (ROOT / "deploy" / "mosquitto" / "try.conf").read_text()
        plugin = build_authsvc_plugin()
        config = config.replace("listener 1883", f"listener {self.mqtt}").replace(":8070", f":{self.webhooks}")
        config = config.replace("deploy/mosquitto/plugin/mosquitto_authsvc.so", str(plugin))
        self._broker = Mosquitto(config.replace("log_dest stderr\n", ""), self.directory)
        self._broker.start()

    def _first_password(self) -> str:
        found = re.search(r"^    password  (\S+)$", self._transcript.read_text(errors="replace"), re.MULTILINE)
        return found[1] if found else "PASSWORD-FROM-THE-FIRST-START"

    @staticmethod
    def _interrupt(process: subprocess.Popen[bytes]) -> None:
        """End a process and what it left in its session, such as a command after `&`."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
