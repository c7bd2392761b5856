"""Manifests: what a model's directory holds, written last and checked by reading every byte.

Knows files, sizes and hashes. Doesn't know where directories lie or which are served.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store.disk import fsync_dir, fsync_file, sha256_file, write_atomic
from store.errors import GenerationError
from store.failpoints import reach

MANIFEST = "manifest.json"
OWN_HASH = "manifest_sha256"  # of everything else in it; older directories have none

Entry = dict[str, Any]
"""sha256 and size of one file."""


def weights_sha256(directory: Path) -> str:
    """SHA-256 over the sorted `NAME SHA256` lines of the top level's `*.safetensors` files."""
    return _weights_hash({path.name: sha256_file(path) for path in directory.glob("*.safetensors")})


def seal(
    directory: Path, fields: Mapping[str, Any], *, like: Path | None = None, weights: bool = True
) -> dict[str, Any]:
    """Write a directory's manifest; all files and the manifest are on disk when this returns.

    Files that are hard links of files of `like` take the hashes of its manifest. Raises
    `GenerationError` for anything that isn't a plain file, and when `weights` are wanted but missing.
    """
    paths = _paths(directory)
    known = _known(like) if like is not None else {}
    files: dict[str, Entry] = {}
    for name, path in paths.items():
        stat = path.stat()
        sha256 = known.get((stat.st_dev, stat.st_ino)) or sha256_file(path)
        fsync_file(path)
        reach("manifest.file")
        files[name] = {"sha256": sha256, "size": stat.st_size}
    manifest = {**fields, "files": files}
    if weights:
        hashes = {name: entry["sha256"] for name, entry in files.items() if _is_weights(name)}
        if not hashes:
            raise GenerationError("seal directory", str(directory), "there are no *.safetensors files in it")
        manifest["weights_sha256"] = _weights_hash(hashes)
    manifest[OWN_HASH] = _own_hash(manifest)
    for folder in sorted({path.parent for path in paths.values()}):
        fsync_dir(folder)
    reach("manifest.files")
    write_atomic(directory / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    return manifest


def read_manifest(directory: Path) -> dict[str, Any]:
    """Raises `GenerationError` when there is none or it can't be read."""
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        cause = "it has no manifest" if directory.is_dir() else "there is no such directory"
        raise GenerationError("read manifest", str(directory), cause) from error
    except ValueError as error:
        raise GenerationError("read manifest", str(path), f"it isn't JSON: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise GenerationError("read manifest", str(path), "it doesn't list files")
    return manifest


def differences(directory: Path) -> list[str]:
    """What differs between a directory and its manifest, as sentences; reads every byte."""
    try:
        manifest = read_manifest(directory)
        listed: dict[str, Entry] = manifest["files"]
        found = _paths(directory)
    except GenerationError as error:
        return [error.cause]
    if manifest.get(OWN_HASH, own := _own_hash(manifest)) != own:
        return ["the manifest itself has changed"]
    faults = [f"{name} is missing" for name in sorted(listed.keys() - found.keys())]
    faults += [f"{name} isn't in the manifest" for name in sorted(found.keys() - listed.keys())]
    for name in sorted(listed.keys() & found.keys()):
        size = found[name].stat().st_size
        if size != listed[name]["size"]:
            faults.append(f"{name} has {size} bytes, the manifest says {listed[name]['size']}")
        elif sha256_file(found[name]) != listed[name]["sha256"]:
            faults.append(f"the bytes of {name} have changed")
    return faults


def _paths(directory: Path) -> dict[str, Path]:
    """All files but the manifest, by name relative to the directory."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise GenerationError("read directory", str(directory), f"{name} isn't a plain file")
        if path.is_file() and name != MANIFEST:
            found[name] = path
    return found


def _known(directory: Path) -> dict[tuple[int, int], str]:
    """Hashes by device and inode of a sealed directory's files."""
    try:
        files = read_manifest(directory)["files"]
    except GenerationError:
        return {}
    known = {}
    for name, entry in files.items():
        stat = (directory / name).stat()
        known[stat.st_dev, stat.st_ino] = str(entry["sha256"])
    return known


def _own_hash(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != OWN_HASH}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _is_weights(name: str) -> bool:
    return "/" not in name and name.endswith(".safetensors")


def _weights_hash(hashes: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
