"""A configuration in plain words: what the daemon will do, one sentence for each policy.

Knows every setting and its unit. Doesn't check anything (`daemon.tables`), and knows the clock only where it
is told: whether edits may be started now.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from daemon.config import Config, Hook
from daemon.console import counted, wrapped
from policies.gates import Direction, Gate, gates_for
from policies.hours import closed_until
from policies.sources import Policy, policies_from
from store.facts import Op

MARGIN = 14  # columns of what a line is about, and its star


@dataclass(frozen=True, slots=True)
class Line:
    """What is so about something; `changed`: it says otherwise than the defaults."""

    about: str
    says: str
    changed: bool


def told(config: Config, now: datetime) -> list[Line]:
    """Every policy in force, in the order of the configuration's tables."""
    usual = set(_said(Config(), now))
    return [Line(about, says, (about, says) not in usual) for about, says in _said(config, now)]


def text(lines: list[Line]) -> str:
    """At most 79 columns; what isn't the default has a star."""
    out, before = [], ""
    for line in lines:
        head = f"{'' if line.about == before else line.about:{MARGIN - 2}}{'*' if line.changed else ' '} "
        out += wrapped(head + line.says, MARGIN)
        before = line.about
    return "\n".join([*out, "* not the default"])


def _said(config: Config, now: datetime) -> Iterator[tuple[str, str]]:
    yield from _process(config)
    yield from _model(config)
    yield from _hours(config, now)
    yield from _retries(config)
    for gate, retract in zip(*(gates_for(op, config.gates) for op in (Op.UPSERT, Op.RETRACT)), strict=True):
        yield "gates", _gate(gate) + ("" if gate == retract else f"; retract: {retract.threshold:g}")
    c = config.capacity
    yield (
        "capacity",
        f"with less than {c.reserve:g} of the allowed loss left, "
        + ("edits wait" if c.enforce else "edits go on all the same"),
    )
    policies = policies_from(config.sources)
    for policy in (*sorted(policies.named.values(), key=lambda p: p.name), policies.default):
        yield from (("sources", f"{policy.name}: {rule}") for rule in _source(policy))
    yield from _surroundings(config)


def _process(config: Config) -> Iterator[tuple[str, str]]:
    d, i = config.daemon, config.inbox
    yield "state", str(config.layout.state)
    yield "daemon", f"looks at the queue every {_span(d.tick_seconds)}, stops within {_span(d.stop_seconds)}"
    yield "re-probe", _every(d.reprobe_hours, "live facts are asked again")
    yield "inbox", f"a file is read when it was still for {_span(i.settle_seconds)}"
    yield "inbox", f"the folder is scanned every {_span(i.rescan_seconds)} at least"
    yield "inbox", f"a file of more than {_bytes(i.max_file_bytes)} is refused"
    yield "inbox", "a bad row refuses " + ("only itself" if i.partial else "its whole file")
    yield (
        "snapshots",
        "facts that are gone from one are "
        + ("retracted" if config.snapshots.retract_missing else "left alone"),
    )


def _model(config: Config) -> Iterator[tuple[str, str]]:
    m, e = config.model, config.editing
    yield "model", f"{m.name} from {m.source}, in {m.dtype} on {m.device}"
    yield "editing", f"recipe {e.recipe} first"
    yield (
        "editing",
        f"up to {e.batch_size} edits are tried together" if e.batch_size > 1 else "one edit at a time",
    )
    yield (
        "editing",
        f"a worker has {_span(e.deadline_seconds)}, and {_span(e.heartbeat_seconds)} without a sign",
    )
    limit = f"at most {_bytes(e.memory_limit_bytes)}" if e.memory_limit_bytes else "any amount"
    yield "editing", f"a worker may take {limit} of memory"


def _hours(config: Config, now: datetime) -> Iterator[tuple[str, str]]:
    h = config.hours
    yield "hours", f"quiet: {', '.join(h.quiet) or 'none'}"
    yield (
        "hours",
        f"edits are started {'only in ' + ', '.join(h.windows) if h.windows else 'at any other time'}",
    )
    yield "hours", f"by the clock of {h.zone}"
    yield (
        "hours",
        f"an edit of high priority {'is started at any time' if h.high_priority_passes else 'waits too'}",
    )
    known = h.resolved()
    closes = known.open_until(now)
    until = f" until {known.told(closes)}" if closes else ""
    closed = closed_until(known, now)
    yield "hours", f"now edits wait for {closed}" if closed else f"now edits may be started{until}"


def _retries(config: Config) -> Iterator[tuple[str, str]]:
    r = config.retries
    yield "retries", f"an edit is tried {r.attempts} times at most"
    yield "retries", f"refused by its gates: then recipes {', '.join(r.recipes) or 'none'}; then it is held"
    first, longest = _span(r.first_wait_seconds), _span(r.longest_wait_seconds)
    yield "retries", f"after a breakdown it waits {first}, then longer, {longest} at most"


def _gate(gate: Gate) -> str:
    sign = ">=" if gate.direction is Direction.AT_LEAST else "<="
    return f"{gate.suite} {sign} {gate.threshold:g}, of {gate.min_n} or more"


def _source(policy: Policy) -> Iterator[str]:
    lists = {"relations": policy.relations, "subjects": policy.subjects}
    for what, allowed in lists.items():
        yield f"{what} {', '.join(allowed) or 'none'}"
    owners = ", ".join(policy.owners)
    yield f"files of {owners} only" if owners else "files of anybody"
    yield "wordings of its own" if policy.allows_prompts else "no wordings of its own"
    yield f"priority {policy.max_priority} at most"
    rate = policy.max_edits_per_hour
    yield f"{rate} edits an hour" if rate else "any number of edits an hour"
    yield "every edit waits for approval" if policy.require_approval else "no approval for a single edit"
    users = counted(policy.approvals, "user")
    wide = policy.wide_change
    yield (
        f"{wide} edits at once wait for approval by {users}"
        if wide
        else f"any number at once ({users} approve)"
    )


def _surroundings(config: Config) -> Iterator[tuple[str, str]]:
    yield "generations", f"the newest {config.generations.keep} are kept on disk, and pinned ones"
    yield "backup", _every(config.backup.every_hours, "a backup is made")
    yield "backup", f"the newest {config.backup.keep} are kept"
    m = config.metrics
    yield "metrics", f"on {m.host} port {m.port}" if m.enabled else f"off (else on {m.host} port {m.port})"
    for what, path in (("certificate", m.tls_cert), ("key", m.tls_key), ("clients signed by", m.client_ca)):
        yield "metrics", f"{what} {path}" if path else f"{what}: none, so no TLS"
    yield (
        "control",
        "on a socket in the state directory" if config.control.enabled else "no socket, ledger only",
    )
    facts = "with" if config.logs.fact_text else "without"
    yield "logs", f"from level {config.logs.level} on, {facts} the text of facts"
    if not config.publish.hooks:
        yield "hooks", "none"
    yield from (("hooks", _hook(hook)) for hook in config.publish.hooks)


def _hook(hook: Hook) -> str:
    return f"{' '.join(hook.argv)}: has {_span(hook.timeout)}, {hook.retries} more tries"


def _every(hours: float, what: str) -> str:
    return f"{what} every {_span(hours * 3600)}" if hours else f"never: {what} by hand only"


def _span(seconds: float) -> str:
    """The largest unit that says it in a whole number, else seconds."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _bytes(count: int) -> str:
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count} bytes"
