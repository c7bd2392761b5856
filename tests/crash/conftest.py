"""One zygote for all tests, and a state directory of each kind to be copied."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from store import failpoints
from tests.crash import world
from tests.crash.world import World
from tests.crash.zygote import Zygote
from tests.invariants import violations

KILLED = -9


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote("tests.crash.world") as started:
        yield started


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, World]:
    """By kind; only ever copied."""
    folder = tmp_path_factory.mktemp("worlds")
    return {
        "work": world.with_work(folder / "work"),
        "new": world.new(folder / "new"),
        "old": world.of_an_older_version(folder / "old"),
    }


@dataclass(frozen=True, slots=True)
class Site:
    """One state directory of a test, and the processes on it."""

    zygote: Zygote
    world: World
    log: Path
    batch_size: int = 1

    def work(self, failpoint: str = "") -> int:
        """The exit status of a daemon that works until nothing is left to do."""
        return self._run("work", str(self.world.config.layout.state), failpoint=failpoint)

    def command(self, name: str, failpoint: str = "") -> int:
        state = str(self.world.config.layout.state)
        return self._run("command", name, "--state", state, failpoint=failpoint)

    def _run(self, function: str, *args: str, failpoint: str) -> int:
        environment = {failpoints.VARIABLE: failpoint, world.BATCH_SIZE: str(self.batch_size)}
        return self.zygote.start(f"tests.crash.world:{function}", *args, log=self.log, **environment).end()

    def violations(self, *, recovered: bool = False) -> list[str]:
        return violations(self.world.config, inputs=self.world.inputs, recovered=recovered)


MakeSite = Callable[[str], Site]


@pytest.fixture
def site(zygote: Zygote, worlds: Mapping[str, World], tmp_path: Path) -> MakeSite:
    """Copies the state directory of one kind."""

    def make(kind: str) -> Site:
        return Site(zygote, world.copied(worlds[kind], tmp_path / "state"), tmp_path / "log")

    return make
