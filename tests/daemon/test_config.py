"""Settings: defaults for everything, every fault at once with its key path."""

from pathlib import Path

import pytest

from daemon.config import CapacitySettings, Config, Hook, load, parse
from store.errors import EXIT_CONFIG, ConfigError

BAD = """
[daemon]
state_dirr = "x"
[inbox]
settle_seconds = nan
partial = 1
[gates.eficacy]
threshold = 1
[gates.efficacy]
threshold = "x"
[[publish.hooks]]
argv = []
timeout = 0
[metrics]
host = "0.0.0.0"
[model]
name = "../evil"
[nonsense]
"""


def test_everything_has_a_default() -> None:
    """No file, an empty file and no state directory all mean the same."""
    assert load(None) == parse("", "empty") == Config()


def test_every_fault_is_reported_at_once() -> None:
    """One error lists all of them, with paths and what was probably meant."""
    with pytest.raises(ConfigError) as caught:
        parse(BAD, "bad.toml")
    assert caught.value.cause.splitlines() == [
        "nonsense: unknown key",
        "daemon.state_dirr: unknown key (did you mean state_dir?)",
        "inbox.settle_seconds: nan is outside 0 to 3600",
        "inbox.partial: expected a boolean, got an integer",
        "model.name: '../evil' must be a plain folder name",
        "gates.eficacy: unknown key (did you mean efficacy?)",
        "gates.efficacy.threshold: expected a number, got a string",
        "metrics.host: '0.0.0.0' is off loopback, which needs tls_cert, tls_key, client_ca",
        "publish.hooks[0].argv: must not be empty",
        "publish.hooks[0].timeout: 0 is outside 0.1 to 3600",
    ]
    assert caught.value.exit_code == EXIT_CONFIG


def test_a_good_file_is_read_whole() -> None:
    """Tables, lists of tables and overrides of gates come out as values."""
    config = parse(
        '[gates.unrelated]\nmin_n = 40\n[[publish.hooks]]\nargv = ["true", "-v"]\n'
        "[inbox]\nsettle_seconds = 1\n",
        "good.toml",
    )
    assert config.gates["unrelated"].min_n == 40
    assert config.gates["unrelated"].threshold is None
    assert config.publish.hooks == (Hook(("true", "-v")),)
    assert config.inbox.settle_seconds == 1.0


def test_the_reserve_is_a_share() -> None:
    """A reserve outside 0 to 1 is a fault, and so is an enforcement that is no boolean."""
    assert parse("[capacity]\nreserve = 0\nenforce = false", "good.toml").capacity == CapacitySettings(
        enforce=False, reserve=0.0
    )
    with pytest.raises(ConfigError) as caught:
        parse("[capacity]\nreserve = 5\nenforce = 1\nkeep = 2", "bad.toml")
    assert caught.value.cause.splitlines() == [
        "capacity.keep: unknown key",
        "capacity.enforce: expected a boolean, got an integer",
        "capacity.reserve: 5 is outside 0 to 1",
    ]


@pytest.mark.parametrize("text", ["a = ", "daemon = 3", "[publish]\nhooks = [1]", "gates = []"])
def test_wrong_shapes_are_faults_too(text: str) -> None:
    """A value where a table should be is named, not tripped over."""
    with pytest.raises(ConfigError):
        parse(text, "bad.toml")


def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    """Missing files and bytes that aren't UTF-8 exit 78, not with a traceback."""
    with pytest.raises(ConfigError):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError):
        load(tmp_path / "latin.toml")


def test_the_command_line_moves_the_state_directory(tmp_path: Path) -> None:
    """`--state` wins over the file, and paths are absolute from there."""
    config = load(None, tmp_path / "elsewhere")
    assert config.layout.inbox == tmp_path / "elsewhere" / "inbox"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("attempts = 0", "retries.attempts: 0 is outside 1 to 20"),
        ('recipes = ["gentel"]', "retries.recipes[0]: 'gentel' is none of default, gentle,"),
        ('recipes = ["gentle", "gentle"]', "retries.recipes[1]: 'gentle' is there twice"),
        ('recipes = ["default"]', "retries.recipes[0]: 'default' means [editing] recipe here"),
        ("first_wait_seconds = 60\nlongest_wait_seconds = 30", "retries.longest_wait_seconds: 30 is less"),
    ],
)
def test_retries_that_make_no_sense_are_faults(text: str, fault: str) -> None:
    """Each by its key, with what is wanted."""
    with pytest.raises(ConfigError) as caught:
        parse(f"[retries]\n{text}", "bad.toml")
    assert caught.value.cause.startswith(fault)


def test_recipes_and_priorities_are_checked_by_name() -> None:
    """At the start and not at the first edit; the key that was moved is unknown where it was."""
    with pytest.raises(ConfigError) as caught:
        parse('[editing]\nrecipe = "x"\nmax_attempts = 3\n[sources.hr]\nmax_priority = "top"', "bad.toml")
    assert [line.split(":")[0] for line in caught.value.cause.splitlines()] == [
        "editing.max_attempts",
        "editing.recipe",
        "sources.hr.max_priority",
    ]
