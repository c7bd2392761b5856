"""The default model, initialised once: real weights, real worker child, real files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon import fetch
from daemon.config import Config, DaemonSettings, MetricsSettings
from daemon.house import House, open_house
from daemon.initialise import initialise
from daemon.runner import never


@pytest.fixture(scope="session")
def model_state(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A state directory with the default model as generation 0."""
    config = replace(
        Config(),
        daemon=DaemonSettings(state_dir=tmp_path_factory.mktemp("real") / "state"),
        metrics=MetricsSettings(port=0),
    )
    with open_house(config) as house:
        initialise(house, fetch.default_model(), never)
    return config


@pytest.fixture
def real_house(model_state: Config) -> Iterator[House]:
    with open_house(model_state) as house:
        yield house


@pytest.fixture
def fact_file(tmp_path: Path) -> Path:
    return tmp_path / "facts.jsonl"
