"""Where dynamic-security and authsvc decide differently after an import, found by asking both.

They can differ only where two rules of a client overlap, or where a rule is not what authsvc has for it. For each such
overlap both are asked about a typical topic of each length (`topics.typical_topics`) or about the overlap itself as a
topic filter. These stand for all others: a rule that does not cover the overlap matches none of them. Clients with the
same roles are compared once; those whose name is a level of a rule on their own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from authsvc.importing.dynsec_config import AclType, Config, Role
from authsvc.importing.dynsec_decisions import Decisions, Verdict
from authsvc.importing.notes import Note, NoteKind, Question, attention
from authsvc.policy import permissions, topics
from authsvc.policy.permissions import Context, Operation, Request
from authsvc.policy.topics import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from authsvc.importing.dynsec_config import Client
    from authsvc.importing.dynsec_decisions import Rule as DynsecRule
    from authsvc.policy.decision import Decision
    from authsvc.policy.permissions import Rule
    from authsvc.policy.topics import Levels

MAX_PAIRS = 1_000_000
"""The number of pairs of rules that are compared; beyond it a note says that others were not."""
MAX_ASKED = 5_000_000
"""The number of rules that are asked for the decisions about those pairs; beyond it the same note is made."""
_MAX_CLIENT_IDS = 20


class _Alike(NamedTuple):
    """What clients that are compared at once have in common; `username` only if it is a level of some rule."""

    order: tuple[str, ...]
    username: str | None


class _Finding(NamedTuple):
    question: Question
    topic_filter: str
    message: str


def differences(config: Config, ours: Callable[[tuple[str, ...]], list[Rule]]) -> list[Note]:
    """Return a note for each overlap of rules that is decided differently, with the clients concerned.

    `ours` returns the rules in authsvc of a client with these roles in dynamic-security.
    """
    versions = [config]
    if not config.is_of_2_1 and not all(role.wildcard_subscriptions for role in config.roles.values()):
        # Mosquitto 2.0.11 ignores allowwildcardsubs.
        roles = {name: replace(role, wildcard_subscriptions=True) for name, role in config.roles.items()}
        versions.append(replace(config, roles=roles))
    comparisons = [_Comparison(each) for each in versions]
    groups: dict[_Alike, list[Client]] = defaultdict(list)
    for client in config.clients:
        groups[_Alike(client.roles, comparisons[0].named(client.username))].append(client)
    concerned: dict[_Finding, list[str]] = defaultdict(list)
    for alike, clients in groups.items():
        rules = ours(alike.order)
        findings = {each for one in comparisons for each in one.of(alike, clients[0].username, rules)}
        for finding in sorted(findings):
            concerned[finding] += [client.username for client in clients]
    notes = [
        Note(NoteKind.DIFFERS, "", finding.message, tuple(usernames), finding.question, finding.topic_filter)
        for finding, usernames in concerned.items()
    ]
    if any(comparison.pairs_left < 0 or comparison.asked_left < 0 for comparison in comparisons):
        message = "the rules overlap too often to compare all pairs of them; there may be more differences"
        notes.append(attention("", message))
    return notes


class _Comparison:
    """Compares the decisions for one group of clients after the other."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.pairs_left = MAX_PAIRS
        self.asked_left = MAX_ASKED
        acls = [acl.levels for role in config.roles.values() for acl in role.acls]
        self._literals = {level for levels in acls for level in levels}
        self._has_patterns = not self._literals.isdisjoint({"%u", "%c"})
        self._deepest = max(map(len, acls), default=0) + 1
        self._unused = "any"  # a level that no rule names
        while self._unused in self._literals:
            self._unused += "-other"
        # A client may choose an id that is a level of a rule.
        at_client_ids = {position for levels in acls for position, level in enumerate(levels) if level == "%c"}
        named = {level for levels in acls for position, level in enumerate(levels) if position in at_client_ids}
        self._client_ids = [f"{self._unused}-id", *sorted(named - {"+", "#", "%u", "%c"})[:_MAX_CLIENT_IDS]]

    def named(self, username: str) -> str | None:
        """Return the username if rules may treat it unlike others, because it is a level of one; otherwise None."""
        return username if self._has_patterns and username in self._literals else None

    def of(self, alike: _Alike, username: str, rules: list[Rule]) -> set[_Finding]:
        """Return the differences for a client with these roles in dynamic-security and these rules in authsvc."""
        found: set[_Finding] = set()
        for client_id in self._client_ids:
            identity = Identity(username, client_id)
            theirs = Decisions(self._config, alike.order, identity)
            shown = {client_id: "%c"} if client_id == self._client_ids[0] else {}
            if self._has_patterns and alike.username is None:
                shown[username] = "%u"
            for question, overlap in self._overlaps(theirs):
                text = "/".join(shown.get(level, level) for level in overlap)
                for asked in self._asked(question, overlap):
                    self.asked_left -= len(rules)
                    if self.asked_left < 0:
                        return found
                    verdict, decision = _decide(question, asked, theirs, rules, identity)
                    if verdict.allowed != bool(decision):
                        found.add(_Finding(question, text, _message(question, text, verdict, decision)))
                        break
        return found

    def _asked(self, question: Question, overlap: Levels) -> Iterator[Levels]:
        if question is Question.SUBSCRIBE:
            yield overlap
        yield from topics.typical_topics(overlap, self._unused, self._deepest)

    def _overlaps(self, theirs: Decisions) -> Iterator[tuple[Question, Levels]]:
        """Yield each question with a topic filter in which the answers can differ."""
        defaults = self._config.defaults
        sends, sends_not = _split(theirs.publishing)
        subscribes, subscribes_not = _split(theirs.subscribing)
        receives, receives_not = _split(theirs.receiving)
        refusing = (*subscribes_not, *receives_not)
        to_publish = self._pairs(sends, sends_not)
        to_read = [*self._pairs(subscribes, refusing)]
        to_subscribe = [
            rule.levels
            for rule in subscribes
            if rule.acl.type is AclType.SUBSCRIBE_LITERAL or not theirs.all_wildcards or not defaults.receive
        ]
        if defaults.subscribe:
            to_read += (rule.levels for rule in refusing)
            to_subscribe.append(("#",))
        to_receive = [*self._pairs(receives, receives_not)]
        if not defaults.receive:
            to_receive += self._pairs(subscribes, receives)
        yield from product((Question.PUBLISH,), to_publish)
        yield from product((Question.SUBSCRIBE,), (*to_read, *to_subscribe))
        yield from product((Question.RECEIVE,), (*to_read, *to_receive))

    def _pairs(self, first: Iterable[DynsecRule], second: Iterable[DynsecRule]) -> Iterator[Levels]:
        for one, other in product(first, second):
            self.pairs_left -= 1
            if self.pairs_left < 0:
                return
            overlap = topics.intersection(one.levels, other.levels)
            if overlap:
                yield overlap


def _split(rules: Iterable[DynsecRule]) -> tuple[list[DynsecRule], list[DynsecRule]]:
    """Return the allow rules and the deny rules."""
    listed = list(rules)
    return [rule for rule in listed if rule.acl.allow], [rule for rule in listed if not rule.acl.allow]


def _decide(
    question: Question, asked: Levels, theirs: Decisions, rules: list[Rule], identity: Identity
) -> tuple[Verdict, Decision]:
    """Return the decisions of dynamic-security and of authsvc."""
    if question is Question.PUBLISH:
        verdict = theirs.publish(asked)
    else:
        verdict = theirs.subscribe(asked) if question is Question.SUBSCRIBE else theirs.receive(asked)
    operation = Operation.WRITE if question is Question.PUBLISH else Operation.READ
    return verdict, permissions.decide(rules, Request(Context.MQTT, operation, asked, identity))


def _message(question: Question, topic_filter: str, verdict: Verdict, decision: Decision) -> str:
    if verdict.cause is None:
        cause = "by defaultACLAccess"
    elif isinstance(verdict.cause, Role):
        cause = f"because {verdict.cause.place}.allowwildcardsubs is false"
    else:
        cause = f"by {verdict.cause}"
    if decision.permission is None:
        own = "because no permission allows it"
    else:
        role = f" of the role {decision.role}" if decision.role else ""
        own = f"by the permission `{decision.permission}`{role}"
    does = ("denies", "allows")
    return (
        f"{question} {topic_filter}: dynamic-security {does[verdict.allowed]} it {cause};"
        f" authsvc {does[bool(decision)]} it {own}"
    )
