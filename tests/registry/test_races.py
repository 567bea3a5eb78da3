"""Requests at the same moment as a grant or denial of the same client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from authsvc.accounts import users
from registry import preauthorizations
from tests.registry.environment import BOBS_PASSWORD, expect_success
from tests.registry.signing import signing_request
from tests.registry.test_enrolment_keys import make_key

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.registry.environment import Environment


def once(before: Callable[[], object], action: Callable[..., Any]) -> Callable[..., Any]:
    """Return the action, with `before` called before its first run."""
    waiting = [before]

    def act(*arguments: Any, **options: Any) -> Any:
        if waiting:
            waiting.pop()()
        return action(*arguments, **options)

    return act


def test_client_granted_during_password_check_gets_201(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    env.unlock()
    registration = env.register_pending()
    verifier = env.services.verifier
    monkeypatch.setattr(verifier, "verify", once(lambda: env.grant_successfully(registration), verifier.verify))
    assert env.register().status_code == 201


def test_concurrent_requests_with_a_key_get_the_same_answer(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"enrolmentKey": make_key(env, uses=5)["secret"], "csr": signing_request("bob")}
    answers = []
    another = once(lambda: answers.append(env.register(**body)), users.exists)
    monkeypatch.setattr(users, "exists", another)
    answers.append(env.register(**body))
    assert [answer.status_code for answer in answers] == [201, 201]
    assert expect_success(answers[0]) == expect_success(answers[1])


def test_concurrent_use_of_a_preauthorization_gives_409(env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_success(env.alice.post("/api/client-registry/preauthorizations", {"username": "bob"}))
    answers = []
    another = once(lambda: answers.append(env.register()), preauthorizations.find_match)
    monkeypatch.setattr(preauthorizations, "find_match", another)
    answers.append(env.register(password="charlie's secret"))
    assert [answer.status_code for answer in answers] == [201, 409]


def test_client_denied_during_password_check_gets_403_next_time(
    env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.unlock()
    registration = env.register_pending()
    verifier = env.services.verifier
    monkeypatch.setattr(verifier, "verify", once(lambda: env.deny(registration), verifier.verify))
    assert env.register().status_code in (202, 403)
    assert env.register().status_code == 403
    assert not env.connect("bob", BOBS_PASSWORD)
