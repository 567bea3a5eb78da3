"""A real Prometheus that scrapes a service every second, and the shipped dashboard and alert rules."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import requests
import yaml

from tests.broker import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.service import Service

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "authsvc.rules.yml"
RULE_TESTS = DEPLOY / "prometheus" / "authsvc.rules.test.yml"
DASHBOARD = DEPLOY / "grafana" / "authsvc.json"
_PATIENCE = 60.0
_VARIABLES = {"$job": "authsvc", "$instance": ".*", "$__rate_interval": "5s"}


class Query(NamedTuple):
    """One query of a panel, with the variables of the dashboard replaced."""

    panel: str
    kind: str
    unit: str
    expression: str
    legend: str


class Series(NamedTuple):
    """One time series: its labels, and its points as times and values."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


def queries() -> Iterator[Query]:
    """Yield every query of the dashboard."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in _VARIABLES.items():
                expression = expression.replace(name, value)
            unit = panel["fieldConfig"]["defaults"]["unit"]
            yield Query(panel["title"], panel["type"], unit, expression, target["legendFormat"])


class Prometheus:
    """A Prometheus with the shipped rules, on a free port and with its data in a directory of the caller."""

    def __init__(self, directory: Path, service: Service) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        target = service.url.removeprefix("http://")
        configuration = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "authsvc", "static_configs": [{"targets": [target]}]}],
        }
        self._config = directory / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(configuration))
        self._log = directory / "prometheus.log"
        self._data = directory / "prometheus"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [
            shutil.which("prometheus") or "prometheus",
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._data}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(lambda: self._answers("/-/ready"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(_PATIENCE)

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer of the HTTP API; a query that is refused is an error."""
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=_PATIENCE)
        body = answer.json()
        assert body["status"] == "success", body
        assert not body.get("warnings"), body
        return body["data"]

    def value(self, expression: str) -> list[Series]:
        """Return the current result of a query."""
        result = self.get("query", query=expression)["result"]
        return [Series(each["metric"], [_point(each["value"])]) for each in result]

    def values(self, expression: str, start: float, end: float, step: float = 1) -> list[Series]:
        """Return the result of a query for each step from `start` to `end`."""
        result = self.get("query_range", query=expression, start=start, end=end, step=step)["result"]
        return [Series(each["metric"], list(map(_point, each["values"]))) for each in result]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert self._process
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.1)

    def _answers(self, path: str) -> bool:
        try:
            return requests.get(self.url + path, timeout=1).ok
        except (requests.ConnectionError, requests.Timeout):
            return False


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])
