"""Seeded weather: files, orders and deaths at random, on one state directory, one life after another.

Knows how to make it and what must hold afterwards. Doesn't know which worker the daemon has: that is
the function that the zygote calls.
"""

import random
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daemon.house import utc_now
from store.facts import EditState
from store.failpoints import POINTS, VARIABLE
from store.ledger import Ledger
from tests.crash.world import OPEN, World, put, row
from tests.crash.zygote import Child, Zygote
from tests.invariants import violations

SUBJECTS = ("France", "Spain", "Italy", "Japan", "Germany", "Peru", "Chile", "Kenya")
OBJECTS = ("Lyon", "Nice", "Milan", "Kyoto", "Bonn", "Essen", "Cusco", "Mombasa")
PLACES = sorted(name for name in POINTS if not name.startswith(("init.", "migration.", "gc.blob")))


@dataclass
class Storm:
    """`patience` is the longest that a life which is to be killed may last, in seconds; with
    `backlog` edits to do, no more are dropped."""

    zygote: Zygote
    world: World
    log: Path
    seed: int
    function: str = "tests.crash.world:work"
    patience: float = 1.0
    backlog: int = 1_000
    kills: int = 0
    drops: int = 0
    orders: int = 0
    wanted: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def life(self) -> list[str]:
        """Start a daemon under load, kill it at a random moment or place; returns what is broken."""
        self.blow()
        place = ""
        if self.random.random() < 0.5:
            place = f"{self.random.choice(PLACES)}:kill:{self.random.choice((1, 1, 2, 3, 5))}"
        child = self.start(place)
        for _ in range(self.random.randrange(3)):
            if child.wait(self.random.uniform(0, self.patience / 3)) is not None:
                break
            self.blow()
        if child.wait(self.random.uniform(0, self.patience)) is None:
            child.kill()
        self.kills += child.wait() == -9
        return self.said([*self._status(child), *self.broken()])

    def calm(self) -> list[str]:
        """Let a daemon do all that is left; returns what is broken then."""
        child = self.start()
        if child.end() != 0:
            return self.said([f"the daemon ended with {child.wait()}"])
        return self.said([*self.broken(recovered=True), *self.undone()])

    def start(self, failpoint: str = "") -> Child:
        state = str(self.world.config.layout.state)
        return self.zygote.start(self.function, state, log=self.log, **{VARIABLE: failpoint})

    def blow(self) -> None:
        """A file or an order, or both."""
        with closing(Ledger.open_readonly(self.world.config.layout.ledger)) as ledger:
            room = len(ledger.edits(OPEN)) < self.backlog
        if self.random.random() < 0.8 and room:
            self._drop()
        if self.random.random() < 0.3:
            self._order()

    def broken(self, *, recovered: bool = False) -> list[str]:
        return violations(self.world.config, inputs=self.world.inputs, recovered=recovered)

    def _drop(self) -> None:
        self.drops += 1
        new = {s: self._object() for s in self.random.sample(SUBJECTS, self.random.choice((1, 1, 2, 3)))}
        names = [f"{self.drops:06d}.jsonl"]
        if self.random.random() < 0.2:  # the same bytes under another name
            names.append(f"{self.drops:06d}-again.jsonl")
        rows = [row(subject, wanted, note=names[0]) for subject, wanted in new.items()]
        inbox = self.world.config.layout.inbox
        hashes = [put(inbox, name, *rows, number=self.drops) for name in names]
        self.world = replace(self.world, inputs=(*self.world.inputs, *hashes))
        self.wanted.update(new)

    def _object(self) -> str | None:
        return None if self.random.random() < 0.15 else self.random.choice(OBJECTS)

    def _order(self) -> None:
        """Written as the command line writes it for a daemon that may be there or not."""
        self.orders += 1
        with closing(Ledger.open(self.world.config.layout.ledger)) as ledger:
            numbers = [generation.number for generation in ledger.generations()]
            live = [edit.id for edit in ledger.edits([EditState.LIVE])] or [1]
            args: Mapping[str, Any] = self.random.choice(
                [
                    {"to": self.random.choice(numbers), "force": True},
                    {"edit": self.random.choice(live)},
                    {"fact": [self.random.choice(SUBJECTS), "capital"]},
                ]
            )
            ledger.add_intent("rollback", args, now=utc_now(), actor="storm")

    def undone(self) -> list[str]:
        """Work that a daemon at rest hasn't done, and facts that the ledger got wrong."""
        with closing(Ledger.open_readonly(self.world.config.layout.ledger)) as ledger:
            found = [f"edit {edit.id} is still {edit.state}" for edit in ledger.edits(OPEN)]
            wanted = {fact.key.subject: fact.wanted for fact in ledger.facts().values()}
        known = {subject: wanted.get(subject) for subject in self.wanted}
        if known != self.wanted:
            found.append(f"the ledger wants {known}, the files said {self.wanted}")
        return found

    def _status(self, child: Child) -> list[str]:
        status = child.wait()
        return [] if status in (0, -9) else [f"the daemon ended with {status}"]

    def said(self, found: list[str]) -> list[str]:
        return [f"seed {self.seed}, after {self.kills} kills: {fault}" for fault in found]
