"""`config check` says every policy in force in plain words."""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from daemon import cli
from daemon.config import Config, GateOverride, Hook, SourceSettings
from daemon.config_words import text, told
from store.errors import EXIT_OK

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)  # a Wednesday
OTHER: dict[str, Any] = {
    "daemon.state_dir": Path("/elsewhere"),
    "model.dtype": "bfloat16",
    "editing.recipe": "gentle",
    "retries.recipes": (),
    "hours.quiet": ("01:00-02:00",),
    "hours.windows": ("sat 03:00-04:00",),
    "hours.zone": "Europe/Athens",
    "logs.level": "debug",
    "metrics.tls_cert": Path("a.pem"),
    "metrics.tls_key": Path("b.pem"),
    "metrics.client_ca": Path("c.pem"),
    "publish.hooks": (Hook(("reload", "it")),),
    "gates": {"neighbours": GateOverride(0.7)},
    "sources": {"hr": SourceSettings()},
}
SOURCE = SourceSettings(("ceo",), ("Acme*",), ("root",), False, "low", 7, True, 50, 3)
HOOK = Hook(("reload", "it"), 31.0, 3)


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2 + 1
    assert isinstance(value, str), value
    return value + "-2"


def variants(config: Config) -> Iterator[tuple[str, Config]]:
    """The configuration with one setting changed, for every setting there is."""
    for item in fields(config):
        table: Any = getattr(config, item.name)
        if not is_dataclass(table):
            yield item.name, replace(config, **{item.name: OTHER[item.name]})
            continue
        for key in fields(table):
            path = f"{item.name}.{key.name}"
            value = OTHER[path] if path in OTHER else changed(getattr(table, key.name))
            yield path, replace(config, **{item.name: replace(cast(Any, table), **{key.name: value})})


def said(config: Config) -> str:
    return text(told(config, NOON))


@pytest.mark.parametrize(("path", "config"), list(variants(Config())))
def test_every_setting_shows(path: str, config: Config) -> None:
    """Whichever is changed, the words change and a star says so: none can be added and forgotten."""
    assert said(config) != said(Config()), path
    assert "\n" in said(config)
    assert any(line.changed for line in told(config, NOON)), path


@pytest.mark.parametrize("key", [f.name for f in fields(SourceSettings)])
def test_every_rule_of_a_source_shows(key: str) -> None:
    """Each is told for the source that has it."""
    plain = replace(Config(), sources={"hr": SourceSettings()})
    ruled = replace(Config(), sources={"hr": replace(SourceSettings(), **{key: getattr(SOURCE, key)})})
    assert said(ruled) != said(plain)


@pytest.mark.parametrize("key", [f.name for f in fields(Hook)])
def test_every_part_of_a_hook_shows(key: str) -> None:
    """What is run, how long it may take and how often it is tried."""
    plain = Hook(("reload",))
    told_of = [
        said(replace(Config(), publish=replace(Config().publish, hooks=(hook,))))
        for hook in (plain, replace(plain, **{key: getattr(HOOK, key)}))
    ]
    assert told_of[0] != told_of[1]


def test_nothing_is_starred_by_default() -> None:
    """A star means that somebody chose it."""
    assert not any(line.changed for line in told(Config(), NOON))


def test_hours_say_whether_edits_may_start_now() -> None:
    """And at which moment they may."""
    closed = replace(Config(), hours=replace(Config().hours, windows=("sat 03:00-04:00",)))
    assert "now edits wait for the window at 2026-07-04T03:00+00:00" in said(closed)
    night = replace(Config(), hours=replace(Config().hours, quiet=("22:00-06:00",)))
    assert "now edits may be started until 2026-07-01T22:00+00:00\n" in said(night)
    assert "now edits may be started\n" in said(Config())


def test_the_command_prints_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As text of at most 79 columns, and as JSON."""
    path = tmp_path / "palimpsest.toml"
    path.write_text('[capacity]\nreserve = 0.2\n[hours]\nquiet = ["22:00-06:00"]\n')
    assert cli.main(["config", "check", str(path)]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "capacity    * with less than 0.2 of the allowed loss left, edits wait\n" in shown
    assert "hours       * quiet: 22:00-06:00\n" in shown
    assert max(map(len, shown.splitlines())) <= 79
    assert cli.main(["config", "check", str(path), "--json"]) == EXIT_OK
    policies = json.loads(capsys.readouterr().out)["policies"]
    assert {"about": "hours", "says": "quiet: 22:00-06:00", "changed": True} in policies
