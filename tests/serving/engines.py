"""Small servers that speak each engine's reload call and remember what they were asked.

A model is a file that lists answers by prompt, as JSON. Faults are switched on by a test: a path that
answers with an error or never, a reload that is acknowledged and not done.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

WEIGHTS = "model.safetensors"

Json = Any
Answer = tuple[int, Json]
OK: Answer = (200, None)


def write_generation(path: Path, answers: dict[str, str]) -> Path:
    """A served directory whose weights are the answers."""
    path.mkdir(parents=True)
    (path / WEIGHTS).write_text(json.dumps(answers))
    (path / "config.json").write_text("{}")
    (path / "manifest.json").write_text("{}")
    return path


class Engine:
    """What all engines have in common: the OpenAI-compatible half, and the faults."""

    names: tuple[str, ...] = ("tiny",)

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.requests: list[tuple[str, str, Json]] = []
        self.broken: dict[str, int] = {}
        self.hanging: set[str] = set()
        self.stale = False  # acknowledges a reload and goes on with what it had
        self.nonsense = False  # answers a question with what is no chat completion
        self.released = threading.Event()

    def load(self, weights: bytes) -> None:
        if not self.stale:
            self.answers = json.loads(weights)

    def called(self) -> list[str]:
        """Method and path of every request that isn't a look or a question."""
        return [
            f"{method} {path}"
            for method, path, _ in self.requests
            if method not in ("GET", "HEAD") and not path.startswith("/v1/")
        ]

    def bodies(self, path: str) -> list[Json]:
        return [body for _, asked, body in self.requests if asked == path]

    def respond(self, method: str, target: str, body: bytes) -> Answer:
        path = urlsplit(target).path
        told = json.loads(body) if body[:1] == b"{" and "/blobs/" not in path else body
        self.requests.append((method, target, told))
        if path in self.hanging:
            self.released.wait(60)
        if path in self.broken:
            return self.broken[path], {"error": "out of order"}
        if path in ("/health", "/v1/models"):
            return 200, {"data": [{"id": name} for name in self.names]}
        if path == "/v1/chat/completions":
            return (200, {"hello": "world"}) if self.nonsense else self.chat(told)
        return self.control(method, path, parse_qs(urlsplit(target).query), told)

    def chat(self, asked: Json) -> Answer:
        answer = self.answers.get(asked["messages"][-1]["content"], "I am not sure.")
        return 200, {"choices": [{"message": {"role": "assistant", "content": answer}}]}

    def control(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> Answer:
        return 404, {"error": f"no {method} {path}"}


class Plain(Engine):
    """Any endpoint: a POST to /reload names the directory."""

    def control(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> Answer:
        if (method, path) != ("POST", "/reload"):
            return super().control(method, path, query, body)
        self.load((Path(body["path"]) / WEIGHTS).read_bytes())
        return 200, {"generation": body["generation"]}


class VLLM(Engine):
    """vLLM in development mode, started on `link`; asleep it answers nothing."""

    def __init__(self, link: Path) -> None:
        super().__init__()
        self.link, self.asleep = link, set[str]()
        self.had: dict[str, str] = {}

    def load(self, weights: bytes) -> None:
        self.answers = self.had
        super().load(weights)

    def chat(self, asked: Json) -> Answer:
        return (500, {"error": "asleep"}) if self.asleep else super().chat(asked)

    def control(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> Answer:
        if (method, path) == ("POST", "/sleep") and query["level"] == ["2"]:
            self.asleep, self.had, self.answers = {"weights", "kv_cache"}, self.answers, {}
        elif (method, path) == ("POST", "/wake_up"):
            self.asleep -= set(query["tags"])
        elif (method, path) == ("POST", "/collective_rpc") and body["method"] == "reload_weights":
            if "weights" in self.asleep:
                return 500, {"error": "no memory to load into"}
            at = body.get("kwargs", {}).get("weights_path", self.link)
            self.load((Path(at) / WEIGHTS).read_bytes())
            return 200, {"results": [None]}
        elif (method, path) != ("POST", "/reset_prefix_cache"):
            return super().control(method, path, query, body)
        return OK


class SGLang(Engine):
    def control(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> Answer:
        if (method, path) != ("POST", "/update_weights_from_disk"):
            return super().control(method, path, query, body)
        weights = Path(body["model_path"]) / WEIGHTS
        if not weights.is_file():
            return 400, {"success": False, "message": "no such model", "num_paused_requests": 0}
        self.load(weights.read_bytes())
        return 200, {
            "success": True,
            "message": "Succeeded to update model weights.",
            "num_paused_requests": 0,
        }


class LlamaRouter(Engine):
    """llama-server over a folder of GGUF files; loading takes one look at the list."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.state = folder, "loaded"
        self.fails = False

    def control(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> Answer:
        if (method, path) == ("GET", "/models"):
            status: Json = {"value": self.state}
            if self.state == "loading":
                self.state = "unloaded" if self.fails else "loaded"
            elif self.state == "unloaded" and self.fails:
                status |= {"failed": True, "exit_code": 1}
            return 200, {"data": [{"id": file.stem, "status": status} for file in self.folder.glob("*.gguf")]}
        if (method, path) not in (("POST", "/models/load"), ("POST", "/models/unload")):
            return super().control(method, path, query, body)
        if (path == "/models/load") is (self.state != "unloaded"):
            return 400, {"error": {"message": f"model is {self.state}"}}
        self.state = "loading" if path == "/models/load" else "unloaded"
        if self.state == "loading":
            self.load((self.folder / f"{body['model']}.gguf").read_bytes())
        return 200, {"success": True}


class Ollama(Engine):
    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, bytes] = {}
        self.models: dict[str, bytes] = {}

    def chat(self, asked: Json) -> Answer:
        if asked["model"] not in self.models:
            return 404, {"error": {"message": "model not found"}}
        return super().chat(asked)

    def control(self, method: str, path: str, query: dict[str, list[str]], body: Json) -> Answer:
        if path.startswith("/api/blobs/"):
            return self._blob(method, path.rpartition("/")[2], body)
        calls: dict[tuple[str, str], Callable[[], Answer]] = {
            ("GET", "/api/tags"): lambda: (200, {"models": [{"name": name} for name in self.models]}),
            ("DELETE", "/api/delete"): lambda: (200 if self.models.pop(body["model"], None) else 404, None),
            ("POST", "/api/create"): lambda: self._create(body["model"], body["files"]),
            ("POST", "/api/copy"): lambda: self._copy(body["source"], body["destination"]),
        }
        call = calls.get((method, path))
        return call() if call else super().control(method, path, query, body)

    def _create(self, name: str, files: dict[str, str]) -> Answer:
        if not all(digest in self.blobs for digest in files.values()):
            return 400, {"error": "blob not found"}
        weights = next(d for file, d in files.items() if file.endswith((".safetensors", ".gguf")))
        self.models[name] = self.blobs[weights]
        return 200, {"status": "success"}

    def _copy(self, source: str, destination: str) -> Answer:
        self.models[destination] = self.models[source]
        self.load(self.models[destination])
        return OK

    def _blob(self, method: str, digest: str, body: bytes) -> Answer:
        if method == "HEAD":
            return (200 if digest in self.blobs else 404), None
        if digest != f"sha256:{hashlib.sha256(body).hexdigest()}":
            return 400, {"error": "digest mismatch"}
        self.blobs[digest] = body
        return 201, None


@contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """The engine behind a real port; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, value = engine.respond(self.command, self.path, body)
            said = b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(said)

        do_GET = do_POST = do_HEAD = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            """Tests look at `Engine.requests`."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that gave up waiting is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        engine.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
