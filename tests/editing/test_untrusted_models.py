"""A model directory is untrusted input: no code of it runs, no pickle is read, nobody is called."""

import ast
import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.runner import Limits, WorkerHandle, never
from policies.editing.model import load
from store.errors import GenerationError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for package in ("daemon", "policies", "store") for p in (ROOT / package).rglob("*.py"))


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
def model(tiny_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_dir, tmp_path / "model")


def test_pickled_weights_are_refused_unread(model: Path, tmp_path: Path) -> None:
    """Without safetensors there are no weights, whatever else lies there."""
    trace = tmp_path / "trace"
    for weights in model.glob("*.safetensors*"):
        weights.unlink()
    for name in ("pytorch_model.bin", "model.ckpt", "training_args.bin"):
        (model / name).write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(GenerationError, match="load model"):
        load(model)
    assert not trace.exists()
    pickle.loads((model / "pytorch_model.bin").read_bytes())
    assert trace.exists()  # it would have


def test_a_pickle_beside_safetensors_is_not_read(model: Path, tmp_path: Path) -> None:
    """The safetensors count and nothing else."""
    trace = tmp_path / "trace"
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(trace)))
    assert load(model).layers is not None
    assert not trace.exists()


@pytest.mark.parametrize("known", [True, False])
def test_code_of_a_model_is_never_run(model: Path, tmp_path: Path, known: bool) -> None:
    """A known architecture is ours, whatever `auto_map` says; one that only its own code knows is refused."""
    trace = tmp_path / "trace"
    body = (
        f"open({str(trace)!r}, 'w').close()\nclass Config: pass\nclass Model: pass\nclass Tokenizer: pass\n"
    )
    (model / "evil.py").write_text(body)
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    if not known:
        config["model_type"] = "evil"
    (model / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", None]}
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    if known:
        assert type(load(model).model).__module__.startswith("transformers.")
    else:
        with pytest.raises(GenerationError, match="load model"):
            load(model)
    assert not trace.exists()


# The child as it is, but whoever opens a connection or looks a name up leaves a trace and fails.
OFFLINE = """
import pathlib, socket, sys
trace = pathlib.Path(sys.argv[1])
def refuse(*args, **kwargs):
    trace.write_text(repr(args))
    raise OSError("no network in this test")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from daemon.worker import main
sys.exit(main(pathlib.Path(sys.argv[2])))
"""


def test_the_worker_calls_nobody(tiny_dir: Path, tmp_path: Path) -> None:
    """With every way out blocked it works, and doesn't try one."""
    trace = tmp_path / "trace"
    runner = WorkerHandle(tmp_path, Limits(), (sys.executable, "-P", "-c", OFFLINE, str(trace)))
    job = {"kind": "ask", "model": str(tiny_dir), "prompts": ["Why?"], "dtype": "float32", "device": "cpu"}
    assert len(runner.run(job, never)["answers"]) == 1
    assert not trace.exists()


def calls(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name and the constant keywords of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            keywords = {
                k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)
            }
            yield name, keywords


def test_no_call_could_run_what_it_reads() -> None:
    """Every loader is told to stay here and to trust nothing; no module reads pickles."""
    loaders = [(path, kw) for path in SOURCES for name, kw in calls(path) if name == "from_pretrained"]
    assert len(loaders) >= 4
    for path, keywords in loaders:
        assert (keywords.get("trust_remote_code"), keywords.get("local_files_only")) == (False, True), path
    for path in SOURCES:
        imported = {
            name.name
            for n in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(n, ast.Import)
            for name in n.names
        }
        assert not imported & {"pickle", "marshal", "shelve", "dill", "joblib"}, path
        assert "torch.load" not in path.read_text("utf-8"), path
