"""What each source may state, how fast, and which edits a human must let through first.

Knows the operator's rules, who wrote a file, and what the queue asks for. Doesn't know files, the
ledger or the clock, and starts or stops nothing. A record's `source` is only a claim: `owners` ties it
to the users whose files may make it.

Sources that the operator didn't name share one budget, that of `default`: else a writer could make up
a source for each record.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Protocol

from policies.relations import relation_key
from store.facts import Edit, EditState, FactKey, FactUpdate, Priority
from store.names import normalise

DEFAULT = "default"
HOUR = timedelta(hours=1)  # what `max_edits_per_hour` counts, and what "at once" means for a wide change


class Settings(Protocol):
    """What an operator may set of one source; None takes the default source's value."""

    @property
    def relations(self) -> tuple[str, ...] | None: ...
    @property
    def subjects(self) -> tuple[str, ...] | None: ...
    @property
    def owners(self) -> tuple[str, ...] | None: ...
    @property
    def prompts(self) -> bool | None: ...
    @property
    def max_priority(self) -> str | None: ...
    @property
    def max_edits_per_hour(self) -> int | None: ...
    @property
    def require_approval(self) -> bool | None: ...
    @property
    def wide_change(self) -> int | None: ...
    @property
    def approvals(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one source. Patterns are shell globs; none of them allows nothing.

    `owners` are user names or ids, empty: anybody. `prompts`: whether records may bring their own
    wordings; None: only where both lists are open, as a wording under an allowed subject can teach
    something about another one. `max_priority`: what a record asks for beyond it is lowered to it.
    `max_edits_per_hour` and `wide_change` 0: no limit.
    `approvals` is how many different users must let through each edit of a wide change.
    """

    name: str = DEFAULT
    relations: tuple[str, ...] = ("*",)
    subjects: tuple[str, ...] = ("*",)
    owners: tuple[str, ...] = ()
    prompts: bool | None = None
    max_priority: str = Priority.HIGH
    max_edits_per_hour: int = 0
    require_approval: bool = False
    wide_change: int = 0
    approvals: int = 2

    @property
    def allows_prompts(self) -> bool:
        return self.prompts if self.prompts is not None else self.relations == self.subjects == ("*",)


@dataclass(frozen=True, slots=True)
class Policies:
    """The rules of all sources; `named` by `fold` of their names."""

    default: Policy = Policy()
    named: Mapping[str, Policy] = field(default_factory=dict)

    def of(self, source: str) -> Policy:
        """The rules for what a record claims to be its source."""
        return self.named.get(fold(source), self.default)

    @property
    def restrict_the_queue(self) -> bool:
        """Whether any edit could ever have to wait."""
        every = (self.default, *self.named.values())
        return any(p.max_edits_per_hour or p.require_approval or p.wide_change for p in every)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose file it is, as the kernel says. `alone`: nobody else may have written what is in it."""

    uid: int
    name: str
    alone: bool


@dataclass(frozen=True, slots=True)
class Drop:
    """How many edits were asked for in the name of one source at one moment, which is one file."""

    source: str
    at: datetime
    edits: int


@dataclass(frozen=True, slots=True)
class Begun:
    """An edit that a worker came to an end with, and when it first did within the last hour."""

    edit: int
    source: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the ledger knows: drops from an hour before the oldest waiting edit on, edits begun within the
    last hour, and who approved which waiting edit (`UID:NAME`)."""

    drops: Sequence[Drop] = ()
    begun: Sequence[Begun] = ()
    approvals: Mapping[int, Sequence[str]] = field(default_factory=dict)


class For(StrEnum):
    APPROVAL = "approval"
    RATE = "rate"
    HOURS = "hours"


@dataclass(frozen=True, slots=True)
class Wait:
    """Why an edit isn't started: `what` it waits for, in short, and the whole story. Neither holds what
    a file says. `until` is when it goes on by itself, None when somebody must act; `reason` is None for
    what every edit waits for."""

    reason: For | None
    what: str
    why: str
    until: datetime | None = None

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who waits, for as long as the ledger says the same."""

    edits: Mapping[int, Wait] = field(default_factory=dict)

    @property
    def until(self) -> datetime | None:
        """When the first of them goes on by itself."""
        return min((wait.until for wait in self.edits.values() if wait.until), default=None)

    def count(self, reason: For) -> int:
        return sum(wait.reason is reason for wait in self.edits.values())


def fold(source: str) -> str:
    """How names of sources compare: a claim in other letters must not slip out of its rules."""
    return normalise(source).casefold()


def repeated(names: Iterable[str]) -> list[str]:
    """The names that mean the same source as one before them."""
    seen = dict[str, str]()
    return [name for name in names if seen.setdefault(fold(name), name) != name]


def policies_from(settings: Mapping[str, Settings]) -> Policies:
    """The operator's rules; what a source leaves out is taken from `[sources.default]`."""
    given = {fold(name): (name, by) for name, by in settings.items()}
    _, by_default = given.pop(DEFAULT, (DEFAULT, None))
    default = _overridden(Policy(), by_default)
    named = {key: _overridden(replace(default, name=name), by) for key, (name, by) in given.items()}
    return Policies(default, named)


def _overridden(policy: Policy, by: Settings | None) -> Policy:
    given = {f.name: getattr(by, f.name, None) for f in fields(Policy) if f.name != "name"}
    return replace(policy, **{name: value for name, value in given.items() if value is not None})


def denied(policies: Policies, update: FactUpdate, owner: Owner) -> str:
    """Why a file of `owner` may not state `update` in the name of its source; empty when it may."""
    policy = policies.of(update.source)
    found = _not_owned(policy, update.source, owner) or unlisted(policies, update.source, update.key)
    if not found and (update.prompts or update.paraphrases) and not policy.allows_prompts:
        return f"{_claim(update.source)} may not bring prompts or paraphrases of its own"
    return found


def lowered(policies: Policies, update: FactUpdate) -> FactUpdate:
    """`update` with the priority that its source may have."""
    most = Priority(policies.of(update.source).max_priority)
    return replace(update, priority=max(update.priority, most, key=list(Priority).index))


def _not_owned(policy: Policy, source: str, owner: Owner) -> str:
    if policy.owners and not {str(owner.uid), owner.name} & set(policy.owners):
        whose = f"this one is {owner.name or owner.uid}'s"
        return f"{_claim(source)} is only taken from files of {', '.join(policy.owners)}; {whose}"
    if policy.owners and not owner.alone:
        return f"{_claim(source)} is only taken from files that nobody but their owner could have written"
    return ""


def unlisted(policies: Policies, source: str, key: FactKey) -> str:
    """Why nobody may state `key` in the name of `source`; empty when its lists allow it."""
    policy = policies.of(source)
    if not _matches(key.relation, policy.relations, relation_key):
        return f"{_claim(source)} may not state the relation {key.relation!r}"
    if not _matches(key.subject, policy.subjects, fold):
        return f"{_claim(source)} may not state anything about {key.subject!r}"
    return ""


def _claim(source: str) -> str:
    return f"source {source!r}" if source else "a record without a source"


def _matches(text: str, patterns: Iterable[str], folded: Callable[[str], str]) -> bool:
    return any(fnmatchcase(folded(text), folded(pattern)) for pattern in patterns)


def waiting(edits: Iterable[Edit], policies: Policies, traffic: Traffic, now: datetime) -> dict[int, Wait]:
    """The pending ones of `edits` that may not be started, and why, in their order.

    What the ledger queued again by itself (`Edit.repeats`) was let through before and waits for nothing.
    """
    asked = [edit for edit in edits if edit.state is EditState.PENDING and edit.repeats is None]
    wide, begun = _wide_changes(policies, traffic.drops), _begun(policies, traffic.begun, now)
    found = dict[int, Wait]()
    for edit in asked:
        policy = policies.of(edit.source)
        size = wide.get((policy.name, edit.dropped_at), 0)
        wait = _approval(edit, policy, size, traffic.approvals.get(edit.id, ()))
        wait = wait or _rate(edit, policy, begun[policy.name])
        if wait is not None:
            found[edit.id] = wait
    return found


def within_rates(
    edits: Iterable[Edit], policies: Policies, begun: Iterable[Begun], now: datetime
) -> list[Edit]:
    """Those of `edits` that may be begun at once, in their order: of a source what its rate leaves."""
    taken, found = _begun(policies, begun, now), list[Edit]()
    for edit in edits:
        policy = policies.of(edit.source)
        if edit.repeats is None:
            if _rate(edit, policy, taken[policy.name]):
                continue
            taken[policy.name][edit.id] = now
        found.append(edit)
    return found


def needed(policy: Policy, size: int) -> int:
    """How many users must approve an edit that is one of `size` at once (0: of no wide change)."""
    return max(int(policy.require_approval), policy.approvals if size else 0)


def people(actors: Iterable[str]) -> set[str]:
    """The different users among these, by id: a name may change."""
    return {actor.partition(":")[0] for actor in actors}


def _approval(edit: Edit, policy: Policy, size: int, actors: Sequence[str]) -> Wait | None:
    wanted, given = needed(policy, size), len(people(actors))
    if given >= wanted:
        return None
    rule = f"one of {size} at once, wide_change = {policy.wide_change}" if size else "require_approval"
    why = f"[sources.{policy.name}] {rule}; `palimpsest approve {edit.id}`"
    return Wait(For.APPROVAL, f"approval ({given} of {wanted})", why)


def _rate(edit: Edit, policy: Policy, begun: Mapping[int, datetime]) -> Wait | None:
    limit = policy.max_edits_per_hour
    if not limit or edit.id in begun or len(begun) < limit:
        return None
    until = sorted(begun.values())[len(begun) - limit] + HOUR
    why = f"{len(begun)} in the last hour, [sources.{policy.name}] max_edits_per_hour = {limit}"
    when = until.isoformat(timespec="seconds")
    return Wait(For.RATE, "its source's rate", f"{why}; goes on at {when}", until)


def _begun(policies: Policies, begun: Iterable[Begun], now: datetime) -> dict[str, dict[int, datetime]]:
    """By policy, the edits begun within the last hour and when."""
    found = defaultdict[str, dict[int, datetime]](dict)
    for each in begun:
        if each.at > now - HOUR:
            found[policies.of(each.source).name][each.edit] = each.at
    return found


def _wide_changes(policies: Policies, drops: Iterable[Drop]) -> dict[tuple[str, datetime | None], int]:
    """By policy and moment of the drop, how many edits came at once, where these are too many.

    At once is one file, whatever sources it claims, or any hour of one policy.
    """
    by_file, by_policy = Counter[datetime](), defaultdict[str, Counter[datetime]](Counter)
    for drop in drops:
        by_file[drop.at] += drop.edits
        by_policy[policies.of(drop.source).name][drop.at] += drop.edits
    found = dict[tuple[str, datetime | None], int]()
    for policy in (policies.default, *policies.named.values()):
        if not policy.wide_change:
            continue
        mine = by_policy[policy.name]
        found |= {(policy.name, at): n for at in mine if (n := by_file[at]) >= policy.wide_change}
        found |= {(policy.name, at): n for at, n in _crowded(mine, policy.wide_change)}
    return found


def _crowded(edits: Mapping[datetime, int], limit: int) -> Iterator[tuple[datetime, int]]:
    """The moments that lie in an hour with at least `limit` edits, and how many these were."""
    times = sorted(edits)
    end, total, told = 0, 0, 0
    for start, first in enumerate(times):
        while end < len(times) and times[end] - first <= HOUR:
            total += edits[times[end]]
            end += 1
        if total >= limit:
            yield from ((at, total) for at in times[max(start, told) : end])
            told = end
        total -= edits[first]
