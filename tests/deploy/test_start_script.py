"""`deploy/mosquitto/start.sh`: it never starts a broker without the secret, and shows the secret to nobody."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.deploy.shipped import MOSQUITTO_CONF, START_SCRIPT, options, rendered_conf, run

if TYPE_CHECKING:
    from pathlib import Path


def test_it_changes_nothing_but_the_secret() -> None:
    template = MOSQUITTO_CONF.read_text()
    assert template.count("{{webhook_secret}}") == 1
    assert rendered_conf("s3cret") == template.replace("{{webhook_secret}}", "s3cret")


def test_the_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from-a-file\n")
    printed = run(START_SCRIPT, "--print", environment={"AUTHSVC_WEBHOOK_SECRET_FILE": str(file)})
    assert options(printed.stdout)["auth_opt_http_host"] == "broker:from-a-file@authsvc"


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({}, "set AUTHSVC_WEBHOOK_SECRET_FILE or AUTHSVC_WEBHOOK_SECRET"),
        ({"AUTHSVC_WEBHOOK_SECRET": ""}, "set AUTHSVC_WEBHOOK_SECRET_FILE or AUTHSVC_WEBHOOK_SECRET"),
        ({"AUTHSVC_WEBHOOK_SECRET_FILE": "/nowhere"}, "cannot read AUTHSVC_WEBHOOK_SECRET_FILE"),
        ({"AUTHSVC_WEBHOOK_SECRET_FILE": "/dev/null"}, "set AUTHSVC_WEBHOOK_SECRET_FILE or AUTHSVC_WEBHOOK_SECRET"),
        ({"AUTHSVC_WEBHOOK_SECRET": "x", "AUTHSVC_WEBHOOK_SECRET_FILE": "/dev/null"}, "set twice"),
    ],
)
def test_without_one_clear_secret_nothing_starts(environment: dict[str, str], complaint: str) -> None:
    started = run(START_SCRIPT, environment=environment)
    assert started.returncode == 1
    assert started.stdout == ""
    assert complaint in started.stderr


UNFIT = ["a b", "a@b", "a/b", "a#b", "a:b", "a%20", "a&b", "a\nlistener 1884", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]


@pytest.mark.parametrize("secret", UNFIT)
def test_a_secret_that_does_not_fit_a_url_is_refused_and_not_repeated(secret: str) -> None:
    started = run(START_SCRIPT, environment={"AUTHSVC_WEBHOOK_SECRET": secret})
    assert started.returncode == 1
    assert "the webhook secret becomes part of a URL" in started.stderr
    assert secret not in started.stdout + started.stderr


def test_the_broker_starts_with_a_file_that_it_alone_can_read(tmp_path: Path) -> None:
    conf = tmp_path / "run" / "mosquitto.conf"
    broker = tmp_path / "mosquitto"
    broker.write_text('#!/bin/sh\necho "$@"\n')
    broker.chmod(0o755)
    started = run(
        START_SCRIPT,
        environment={
            "AUTHSVC_WEBHOOK_SECRET": "s3cret",
            "MOSQUITTO_CONF": str(conf),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
        },
    )
    assert (started.returncode, started.stdout) == (0, f"-c {conf}\n"), started.stderr
    assert conf.stat().st_mode & 0o777 == 0o600
    assert conf.read_text() == rendered_conf("s3cret")
