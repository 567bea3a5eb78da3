"""A client that asks in the very moment in which it is granted is answered as the one it is, not as a stranger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from authsvc.accounts import users
from registry import preauthorization_match
from tests.registry.environment import BOBS_PASSWORD, done
from tests.registry.signing import signing_request
from tests.registry.test_enrolment_keys import make_key

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tests.registry.environment import Place


def once(before: Callable[[], object], action: Callable[..., Any]) -> Callable[..., Any]:
    """Return the action with something happening just before it runs for the first time."""
    waiting = [before]

    def act(*arguments: Any, **options: Any) -> Any:
        if waiting:
            waiting.pop()()
        return action(*arguments, **options)

    return act


def test_a_client_that_is_granted_while_its_password_is_checked_gets_in(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.unlock()
    registration = place.asks()
    verifier = place.services.verifier
    monkeypatch.setattr(verifier, "verify", once(lambda: place.granted(registration), verifier.verify))
    assert place.registers().status_code == 201


def test_a_client_that_asks_twice_at_once_with_a_key_is_answered_twice(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"enrolmentKey": make_key(place, uses=5)["secret"], "csr": signing_request("bob")}
    answers = []
    another = once(lambda: answers.append(place.registers(**body)), users.exists)
    monkeypatch.setattr(users, "exists", another)
    answers.append(place.registers(**body))
    assert [answer.status_code for answer in answers] == [201, 201]
    assert done(answers[0]) == done(answers[1])


def test_a_name_that_another_client_takes_by_a_preauthorization_at_the_same_moment_is_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(place.alice.post("/api/client-registry/preauthorizations", {"username": "bob"}))
    answers = []
    another = once(lambda: answers.append(place.registers()), preauthorization_match.match)
    monkeypatch.setattr(preauthorization_match, "match", another)
    answers.append(place.registers(password="charlie's secret"))
    assert [answer.status_code for answer in answers] == [201, 409]


def test_a_client_that_is_denied_while_its_password_is_checked_is_told_so_next_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.unlock()
    registration = place.asks()
    verifier = place.services.verifier
    monkeypatch.setattr(verifier, "verify", once(lambda: place.deny(registration), verifier.verify))
    assert place.registers().status_code in (202, 403)
    assert place.registers().status_code == 403
    assert not place.connects("bob", BOBS_PASSWORD)
