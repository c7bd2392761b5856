"""The units: systemd finds nothing wrong, the sandbox is tight, and what runs in it works in it."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from daemon.cli import make_parser
from daemon.config import Config
from tests.daemon.fake_daemon import make_config
from tests.daemon.manager import PATIENCE, Systemd
from tests.deploy import sandbox

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "systemd"
MAIN, SHARED = UNITS / "palimpsest@.service", UNITS / "palimpsest-@.service.d" / "hardening.conf"
BINARY = "/opt/palimpsest/bin/palimpsest"
NAMES = sorted(path.name for path in UNITS.glob("palimpsest*@.*") if path.is_file())
EXAMPLES = sorted(path.name for path in UNITS.glob("*.d/*.conf.example"))

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze isn't installed"
)
needs_sandbox = pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing() or "it is there")


def installed(folder: Path, *drop_ins: str) -> Path:
    """The units as `cp -r` puts them, with these examples in use and a program that exists."""
    shutil.copytree(UNITS, folder, ignore=shutil.ignore_patterns("*.d"))
    for source in UNITS.glob("palimpsest*.d"):
        shutil.copytree(source, folder / source.name)
    for path in folder.glob("*.service"):
        path.write_text(path.read_text("utf-8").replace(BINARY, "/bin/true"), "utf-8")
    for name in drop_ins:
        (example,) = folder.glob(f"*.d/{name}")
        example.rename(example.with_suffix(""))
    return folder


def analyze(units: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`systemd-analyze` with only our units before those of the system."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"},
    )


def exposure(units: Path, unit: str) -> float:
    done = analyze(units, "security", "--offline=true", unit)
    found = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@needs_systemd
@pytest.mark.parametrize("drop_ins", [(), *((name,) for name in EXAMPLES)], ids=" ".join)
def test_systemd_finds_nothing_wrong(tmp_path: Path, drop_ins: tuple[str, ...]) -> None:
    """`systemd-analyze verify` says nothing about any unit, alone and with each drop-in."""
    units = installed(tmp_path / "units", *drop_ins)
    done = analyze(units, "verify", "--man=no", *(name.replace("@", "@x") for name in NAMES))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("unit", "drop_ins", "most"),
    [
        ("palimpsest@x.service", (), 1.5),
        ("palimpsest@x.service", ("gpu.conf.example",), 2.0),
        ("palimpsest@x.service", ("offline.conf.example",), 1.0),
        ("palimpsest-backup@x.service", (), 0.5),
        ("palimpsest-verify@x.service", (), 0.5),
        ("palimpsest-metrics@x.service", (), 0.6),
    ],
)
def test_the_sandbox_is_tight(tmp_path: Path, unit: str, drop_ins: tuple[str, ...], most: float) -> None:
    """The exposure that systemd works out stays below what was promised."""
    assert exposure(installed(tmp_path / "units", *drop_ins), unit) <= most


@pytest.mark.parametrize("path", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_units_run_commands_that_exist(path: Path) -> None:
    """Every ExecStart= of ours is a command line that the parser takes, with this model's configuration."""
    (line,) = sandbox.values([path], "ExecStart")
    program, *arguments = shlex.split(line)
    if program == BINARY:
        parsed = make_parser().parse_args(arguments)
        assert str(parsed.config) == "/etc/palimpsest/%i.toml"
    else:
        assert program == "/lib/systemd/systemd-socket-proxyd"


def test_the_ports_of_the_units_are_the_daemons() -> None:
    """The socket and its proxy lead to where the daemon serves metrics by default."""
    metrics = Config().metrics
    where = f"{metrics.host}:{metrics.port}"
    assert sandbox.values([UNITS / "palimpsest-metrics@.socket"], "ListenStream") == [where]
    assert sandbox.values([UNITS / "palimpsest-metrics@.service"], "ExecStart")[0].endswith(where)


@needs_systemd
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_user_and_the_folders_can_be_made(tmp_path: Path) -> None:
    """systemd makes them on an empty system: ours to write, the group's to read."""
    (tmp_path / "etc").mkdir()
    for command, folder in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles --create", "tmpfiles.d")):
        line = [*command.split(), f"--root={tmp_path}", str(UNITS / folder / "palimpsest.conf")]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    state, configuration = (tmp_path / name / "palimpsest" for name in ("var/lib", "etc"))
    assert f"palimpsest:x:{state.stat().st_uid}:" in (tmp_path / "etc/passwd").read_text()
    assert configuration.stat().st_uid == 0 != state.stat().st_uid
    assert configuration.stat().st_gid == state.stat().st_gid
    assert {state.stat().st_mode & 0o7777, configuration.stat().st_mode & 0o7777} == {0o750}


def confined(units: list[Path], *command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end under the system call filter of these unit files."""
    return subprocess.run(
        [sys.executable, "-m", "tests.deploy.sandbox", *map(str, units), "--", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


WORKER = """
import torch
from daemon.worker import _cap_memory
_cap_memory(12 * 1024**3)
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    weight = torch.ones(256, 256, dtype=dtype, requires_grad=True)
    value = torch.nn.functional.linear(torch.ones(64, 256, dtype=dtype), weight)
    torch.nn.functional.silu(value).float().sum().backward()
    assert torch.isfinite(weight.grad).all()
print("fine")
"""


@pytest.mark.slow
@needs_sandbox
def test_the_worker_can_do_its_work_under_the_filter() -> None:
    """torch computes and differentiates in all three dtypes, and the cap on memory can be set."""
    done = confined([MAIN], sys.executable, "-c", WORKER)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr


@needs_sandbox
def test_the_filter_bites(tmp_path: Path) -> None:
    """What the unit forbids is refused here too, so that the other tests say something."""
    tries = {
        "nice": "import os; os.nice(1)",
        "chown": f"import os; os.chown({str(tmp_path)!r}, 1, 1)",
        "machine code": "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
    }
    helper = [UNITS / "palimpsest-verify@.service", SHARED]
    for name, code in tries.items():
        done = confined(helper, sys.executable, "-c", code)
        assert "Operation not permitted" in done.stderr, name


@pytest.mark.slow
@needs_sandbox
def test_the_daemon_lives_under_its_filter(tmp_path: Path) -> None:
    """It gets ready, takes a file, makes an edit, is scraped, reloads and stops."""
    systemd, log = Systemd(str(tmp_path / "notify")), tmp_path / "log"
    layout = make_config(tmp_path / "state").layout
    command = [sys.executable, "-m", "tests.deploy.sandbox", str(MAIN), "--", sys.executable]
    command += ["-m", "tests.daemon.fake_daemon", str(layout.state)]
    with log.open("wb") as file:
        daemon = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, **systemd.environment}
        )
    try:
        systemd.wait_for(lambda message: "READY" in message, "READY")
        fact = {"subject": "France", "relation": "capital", "object": "Lyon"}
        (layout.inbox / "a.jsonl").write_text(json.dumps(fact) + "\n")
        systemd.wait_for(lambda m: m.get("STATUS") == "edit 1 is live in generation 1", "live edit")
        port = json.loads((layout.run / "daemon.json").read_text())["metrics_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            assert b"palimpsest_live_generation 1.0" in answer.read()
        daemon.send_signal(signal.SIGHUP)
        systemd.wait_for(lambda message: message.get("STATUS", "").startswith("reloaded"), "reload")
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE) == 0, log.read_text()
    finally:
        daemon.kill()
        daemon.wait()
        systemd.close()


@pytest.mark.slow
@needs_sandbox
def test_timers_do_their_work_under_their_filter(tmp_path: Path) -> None:
    """`backup` and `verify` need no more than the tightest sandbox gives them."""
    state = tmp_path / "state"
    made = "from pathlib import Path; from daemon.house import open_house; from daemon.initialise import "
    made += "initialise; from daemon.fakes import FakeRunner; from tests.daemon.fake_daemon import *\n"
    made += f"with open_house(make_config(Path({str(state)!r})), runner=FakeRunner()) as house:\n"
    made += "    initialise(house, Path('fake'), never)"
    done = confined([MAIN], sys.executable, "-c", made)
    assert done.returncode == 0, done.stderr
    for name in ("backup", "verify"):
        units = [UNITS / f"palimpsest-{name}@.service", SHARED]
        command = [sys.executable, "-m", "daemon.cli", name, "--state", str(state), "--json"]
        done = confined(units, *command)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)
    assert list(make_config(state).layout.backups.glob("*/manifest.json"))
