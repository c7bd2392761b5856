"""Kills at random moments and places, under a load of files and orders; each seed has its own weather.

PALIMPSEST_KILLS says how many (20), PALIMPSEST_SEED where the seeds begin (1), and PALIMPSEST_TINY=1
that the model is a tiny real one instead of a list of facts.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import tiny, world
from tests.crash.storm import Storm
from tests.crash.world import World
from tests.crash.zygote import Zygote

KILLS = int(os.environ.get("PALIMPSEST_KILLS", "20"))
FIRST_SEED = int(os.environ.get("PALIMPSEST_SEED", "1"))
TINY = os.environ.get("PALIMPSEST_TINY", "") == "1"
KILLS_PER_SEED = 25 if TINY else 10
SEEDS = range(FIRST_SEED, FIRST_SEED + -(-KILLS // KILLS_PER_SEED))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A state directory to copy."""
    folder = tmp_path_factory.mktemp("begun")
    if not TINY:
        return world.with_work(folder / "state")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    return tiny.initialised(folder / "state")


@pytest.fixture(scope="module")
def forker() -> Iterator[Zygote]:
    modules = ("tests.crash.tiny", "torch", "policies.editing.jobs") if TINY else ("tests.crash.world",)
    with Zygote(*modules) as started:
        yield started


@pytest.mark.parametrize("seed", SEEDS)
def test_random_kills_lose_nothing(forker: Zygote, begun: World, tmp_path: Path, seed: int) -> None:
    """Whenever the daemon dies, every invariant holds, and the next one does all that was asked."""
    where = world.copied(begun, tmp_path / "state")
    function, patience = ("tests.crash.tiny:work", 6.0) if TINY else ("tests.crash.world:work", 1.0)
    storm = Storm(forker, where, tmp_path / "log", seed, function, patience)
    while storm.kills < KILLS_PER_SEED:
        assert storm.life() == [], storm.log.read_text()
    assert storm.calm() == [], storm.log.read_text()
    print(f"seed {seed}: {storm.kills} kills, {storm.drops} files, {storm.orders} orders")
