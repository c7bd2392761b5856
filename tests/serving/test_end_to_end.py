"""From a dropped file to an answer over HTTP and back: real weights, real edit, real endpoint, real hook."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import cycle, rollback
from daemon.config import Config, DaemonSettings, MetricsSettings, ModelSettings, PublishSettings
from daemon.fakes import ScriptedFolder
from daemon.house import House, open_house
from daemon.inbox import Inbox
from daemon.ingest import ingest_ready
from daemon.initialise import initialise
from daemon.runner import never
from daemon.vitals import take_vitals
from policies.editing.suites import MEASURED_TOKENS
from policies.served import ANSWER_TOKENS
from store.facts import FactKey
from tests.serving.endpoint import Client, endpoint
from tests.serving.tiny import WORDINGS, TinyRunner, taught

pytestmark = pytest.mark.slow  # one state directory serves all tests in file order, as a deployment would

QUESTION = "Where is Ada?"
MOVED = {"subject": "Ada", "relation": "place", "object": "Rome", "prompts": WORDINGS}


@pytest.fixture(scope="module")
def client_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Client]]:
    """A house with the taught model, served over HTTP and told by a hook of every switch."""
    folder = tmp_path_factory.mktemp("serving")
    config = replace(
        Config(),
        daemon=DaemonSettings(state_dir=folder / "state"),
        model=ModelSettings(name="tiny"),
        metrics=MetricsSettings(port=0),
    )
    with open_house(config, runner=TinyRunner()) as house:
        initialise(house, taught(folder / "source"), never)
        with endpoint(house.layout.model / "current") as client:
            yield replace(house, config=replace(config, publish=PublishSettings((client.hook,)))), client


def served(house: House) -> float | None:
    house.metrics.show(take_vitals(house))
    return house.metrics.registry.get_sample_value("palimpsest_served_generation")


def failed_hooks(house: House) -> float:
    return house.metrics.registry.get_sample_value("palimpsest_hooks_total", {"result": "failed"}) or 0.0


def test_a_dropped_fact_is_answered_over_http_and_taken_back(client_of: tuple[House, Client]) -> None:
    """Drop a file, ask over HTTP, see the new answer; roll back, see the old one; the metric follows."""
    house, client = client_of
    old = client.ask(QUESTION)
    assert "Oslo" in old
    assert client.call("/v1/models")["data"] == [{"id": "tiny", "object": "model"}]
    ScriptedFolder(house.layout.inbox).drop("moved.jsonl", json.dumps(MOVED))
    ingest_ready(house, Inbox(house.layout, house.config.inbox))
    assert cycle.step(house) == "edit 1 is live in generation 1"
    assert client.call("/healthz") == {"status": "ok", "generation": 1}
    assert "Rome" in client.ask(QUESTION)
    assert (served(house), failed_hooks(house)) == (1, 0)
    rollback.without_fact(house, FactKey("Ada", "place"))
    assert client.ask(QUESTION) == old
    assert (served(house), failed_hooks(house)) == (0, 0)


def test_the_endpoint_follows_the_link_by_itself(client_of: tuple[House, Client]) -> None:
    """Without a hook it looks at each request."""
    house, client = client_of
    alone = replace(house, config=replace(house.config, publish=PublishSettings()))
    rollback.to_generation(alone, 1, force=True)
    assert client.serves(1)
    assert "Rome" in client.ask(QUESTION)


def test_what_cannot_be_loaded_is_not_served(client_of: tuple[House, Client], tmp_path: Path) -> None:
    """A directory without a model is refused; the generation before goes on answering."""
    house, client = client_of
    number, said = client.call("/healthz")["generation"], client.ask(QUESTION)
    current = house.layout.model / "current"
    was = current.readlink()
    current.unlink()
    current.symlink_to(tmp_path)
    assert client.status("/reload", {}) == 500
    assert client.call("/healthz")["generation"] == number
    assert client.ask(QUESTION) == said
    current.unlink()
    current.symlink_to(was)
    assert client.call("/reload", {})["generation"] == number


@pytest.mark.parametrize(("path", "body", "status"), [("/v1/chat/completions", {}, 400), ("/v2", {}, 404)])
def test_a_bad_request_is_refused(
    client_of: tuple[House, Client], path: str, body: dict[str, str], status: int
) -> None:
    """Without messages, or to another path: an error in OpenAI's form, and the endpoint stays up."""
    _, client = client_of
    assert client.status(path, body) == status
    assert client.call("/healthz")["status"] == "ok"


def test_engines_are_asked_for_as_many_tokens_as_the_gates() -> None:
    """A longer answer may go on to the old object, a shorter one may not come to the new."""
    assert ANSWER_TOKENS == MEASURED_TOKENS
