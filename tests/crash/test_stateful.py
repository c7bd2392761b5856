"""Any sequence of drops, edits, orders and crashes leaves the ledger where a plain model of it says."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daemon import control, cycle
from daemon.commit import tidy
from daemon.config import CapacitySettings, Config, DaemonSettings, GenerationSettings
from daemon.fakes import FakeClock, FakeRunner
from daemon.house import House, open_house
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready, ingest_resumed
from daemon.initialise import initialise
from daemon.logs import make_log
from daemon.recovery import recover
from daemon.runner import never
from policies.relations import load_relations
from store.facts import EditState
from store.failpoints import armed
from tests.crash.ledger_model import LedgerModel
from tests.crash.world import put, row
from tests.invariants import violations

RELATIONS = load_relations()
SUBJECTS = ("France", "Spain", "Peru")  # Peru's candidates never pass
ROWS = st.dictionaries(
    st.sampled_from(SUBJECTS), st.sampled_from(("Lyon", "Nice", "Milan", None)), min_size=1, max_size=2
)
PICK = st.integers(0, 1_000)


class Crash(BaseException):
    """The process is gone: nothing may catch it."""


def dying_after(places: int) -> Callable[[str], None]:
    """Dies at the next failpoint after so many."""
    left = iter(range(places, -1, -1))

    def act(name: str) -> None:
        if next(left, None) == 0:
            raise Crash(name)

    return act


class Daemon(RuleBasedStateMachine):
    """The house on one side, the model on the other; compared after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="palimpsest-"))
        self.config = replace(
            Config(),
            daemon=DaemonSettings(state_dir=self.folder / "state"),
            generations=GenerationSettings(keep=2),
            capacity=CapacitySettings(enforce=False),
        )
        self.clock = FakeClock()
        self.model = LedgerModel()
        self.dropped: list[Mapping[str, str | None]] = []
        self.inputs: list[str] = []
        self.stack = ExitStack()
        self.house = self.opened()
        initialise(self.house, Path("fake"), never)

    def opened(self) -> House:
        self.stack = ExitStack()
        log = make_log(replace(self.config.logs, level="error"))
        runner = FakeRunner(script={"Peru": "bad"})
        house = self.stack.enter_context(
            open_house(self.config, runner=runner, relations=RELATIONS, log=log, now=self.clock)
        )
        self.inbox = Inbox(house.layout, self.config.inbox, self.clock.monotonic)
        return house

    def teardown(self) -> None:
        self.stack.close()
        shutil.rmtree(self.folder)

    # what a daemon does in one turn

    def take_in(self) -> None:
        ingest_resumed(self.house, self.inbox)
        ingest_ready(self.house, self.inbox)

    def carry_out(self) -> None:
        control.execute_open(self.house)

    def put(self, rows: Mapping[str, str | None]) -> None:
        number = len(self.inputs)
        name = f"{number:05d}.jsonl"
        lines = (row(subject, new) for subject, new in rows.items())
        self.inputs.append(put(self.house.layout.inbox, name, *lines, number=number))

    def order(self, kind: str, **args: Any) -> None:
        self.house.ledger.add_intent(kind, args, now=self.clock(), actor="ada")

    # rules

    @initialize()
    def begin(self) -> None:
        """A history worth rolling back: a fact changed twice, another one between."""
        for rows in ({"France": "Lyon"}, {"Spain": "Milan"}, {"France": "Nice"}):
            self.drop(rows)
            self.step()

    @rule(rows=ROWS)
    def drop(self, rows: Mapping[str, str | None]) -> None:
        self.put(rows)
        self.take_in()
        self.taken(rows)

    @precondition(lambda self: self.dropped)
    @rule(pick=PICK)
    def duplicate(self, pick: int) -> None:
        self.drop(self.dropped[pick % len(self.dropped)])

    @rule()
    def step(self) -> None:
        if not self.model.paused:
            edit = self.model.next_edit()
            cycle.step(self.house)
            self.edited(edit)

    @rule(pick=PICK, how=st.sampled_from(("to", "edit", "fact")))
    def roll_back(self, pick: int, how: str) -> None:
        args = self.way_back(pick, how)
        self.order("rollback", **args)
        self.carry_out()
        self.rolled_back(args)

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.order("pause" if paused else "resume")
        self.carry_out()
        self.model.paused = paused

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        edit = self.of_states(pick, EditState.PENDING, EditState.HELD, EditState.ROLLED_BACK)
        if edit is not None:
            self.order("cancel", edit=edit)
            self.carry_out()
            self.model.edits[edit].state = EditState.CANCELLED

    @rule(pick=PICK)
    def retry(self, pick: int) -> None:
        edit = self.of_states(pick, EditState.HELD, EditState.FAILED, EditState.ROLLED_BACK)
        if edit is not None:
            self.order("retry", edit=edit)
            self.carry_out()
            made = self.model.edits[edit]
            if self.model.wanted[made.subject] == made.new:
                made.state = EditState.PENDING

    @rule()
    def collect(self) -> None:
        tidy(self.house)
        self.house.blobs.gc(self.house.ledger.referenced_blobs())

    @rule(
        rows=ROWS,
        pick=PICK,
        how=st.sampled_from(("to", "edit", "fact")),
        work=st.sampled_from(("drop", "step", "roll back", "roll back")),
        after=st.integers(0, 40),
        again=st.none() | st.integers(0, 30),
    )
    def crash(
        self,
        rows: Mapping[str, str | None],
        pick: int,
        how: str,
        work: str,
        after: int,
        again: int | None,
    ) -> None:
        """Die in the middle of something, perhaps die again while recovering, and come back."""
        edit, args = self.model.next_edit(), self.way_back(pick, how)
        doing: dict[str, Callable[[], object]] = {
            "drop": self.take_in,
            "step": lambda: cycle.step(self.house),
            "roll back": self.carry_out,
        }
        if work == "drop":
            self.put(rows)
        elif work == "roll back":
            self.order("rollback", **args)
        elif self.model.paused:
            return
        died = self.dies(after, doing[work])
        if died and again is not None:
            self.dies(again, self.come_back)
        if died:
            self.come_back()
        if work == "drop":
            self.taken(rows)
        elif work == "roll back":
            self.rolled_back(args)
        else:
            self.edited(edit, cut_off=died)

    def dies(self, after: int, work: Callable[[], object]) -> bool:
        try:
            with armed(dying_after(after)):
                work()
        except Crash:
            self.stack.close()
            self.house = self.opened()
            return True
        return False

    def come_back(self) -> None:
        recover(self.house)
        self.take_in()
        self.carry_out()

    # what each of them means for the model

    def taken(self, rows: Mapping[str, str | None]) -> None:
        self.clock.advance(1)
        if list(rows.items()) not in [list(before.items()) for before in self.dropped]:  # else a duplicate
            self.dropped.append(rows)
            self.model.accept(rows)

    def edited(self, edit: int | None, *, cut_off: bool = False) -> None:
        self.clock.advance(1)
        if edit is None:
            return
        state, made = self.house.ledger.edit(edit).state, self.model.edits[edit]
        may_be = {EditState.PENDING, EditState.HELD} if made.subject == "Peru" else {EditState.LIVE}
        if cut_off:
            may_be |= {EditState.PENDING, EditState.FAILED}
        assert state in may_be
        if state is EditState.LIVE:
            self.model.serve(self.house.live_number, (*self.model.generations[self.model.live], edit))
        made.state = state

    def way_back(self, pick: int, how: str) -> dict[str, Any]:
        if how == "to":
            return {"to": sorted(self.model.generations)[pick % len(self.model.generations)], "force": True}
        if how == "edit":
            return {"edit": 1 + pick % max(len(self.model.edits), 1)}
        return {"fact": [SUBJECTS[pick % len(SUBJECTS)], "capital"]}

    def rolled_back(self, args: Mapping[str, Any]) -> None:
        self.clock.advance(1)
        model = self.model
        if "to" in args:
            edits = model.generations[args["to"]]
            if args["to"] != model.live:
                model.serve(args["to"], edits)
            return
        edit = args["edit"] if "edit" in args else model.newest_of(args["fact"][0])
        if edit in model.generations[model.live]:
            model.serve(self.house.live_number, model.without(edit))

    def of_states(self, pick: int, *states: EditState) -> int | None:
        found = [n for n, edit in self.model.edits.items() if edit.state in states]
        return found[pick % len(found)] if found else None

    # what always holds

    @invariant()
    def the_ledger_is_the_model(self) -> None:
        ledger, model = self.house.ledger, self.model
        assert {e.id: e.state for e in ledger.edits()} == {n: e.state for n, e in model.edits.items()}
        facts = ledger.facts().values()
        assert {f.key.subject: f.wanted for f in facts} == model.wanted
        assert {f.key.subject: f.value for f in facts} == model.served()
        live = ledger.live_generation()
        assert live is not None
        assert (live.number, live.edits) == (model.live, model.generations[model.live])
        assert control.is_paused(self.house) == model.paused

    @invariant()
    def the_served_bytes_are_what_the_model_taught(self) -> None:
        shard = self.house.models.current() / "model-00002-of-00002.safetensors"
        taught = [(subject, new) for subject, _, new in json.loads(shard.read_text())]
        assert taught == self.model.facts()

    @invariant()
    def nothing_is_broken(self) -> None:
        assert violations(self.config, inputs=self.inputs, recovered=True) == []


TestDaemon = Daemon.TestCase
TestDaemon.__doc__ = __doc__
TestDaemon.settings = settings(
    max_examples=20,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
