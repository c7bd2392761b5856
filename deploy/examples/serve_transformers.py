"""An OpenAI-compatible endpoint for one model on `current`, which follows the link: an example, for one user.

    serve_transformers.py STATE/models/NAME/current [--port 8000]

GET /healthz and /v1/models, POST /v1/chat/completions (greedy, no streaming), POST /reload. It looks at the
link every second; a publish hook (`check.py --post /reload`) needn't wait for that. While a generation can't
be loaded the one before goes on answering, and /healthz says which one that is.
"""

import argparse
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

Json = dict[str, Any]


class Served:
    """The loaded generation; one answer or one load at a time."""

    def __init__(self, link: Path) -> None:
        self.link, self.path, self.number, self.lock = link.absolute(), Path(), -1, threading.Lock()
        self.reload({})

    def reload(self, _body: Json) -> Json:
        with self.lock:
            if (path := self.link.resolve()) != self.path:
                number = json.loads((path / "manifest.json").read_text("utf-8"))["number"]
                tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
                model: Any = AutoModelForCausalLM.from_pretrained(
                    path, local_files_only=True, use_safetensors=True
                )
                self.tokenizer, self.model, self.path, self.number = tokenizer, model.eval(), path, number
            return self.health({})

    def health(self, _body: Json) -> Json:
        return {"status": "ok", "generation": self.number}

    def models(self, _body: Json) -> Json:
        return {"object": "list", "data": [{"id": self.link.parent.name, "object": "model"}]}

    def chat(self, body: Json) -> Json:
        with self.lock:
            asked = self.tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            said = self.model.generate(**asked, max_new_tokens=body.get("max_tokens", 64), do_sample=False)
            text = self.tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        choice = {"index": 0, "message": {"role": "assistant", "content": text.strip()}}
        return {"object": "chat.completion", "model": self.link.parent.name, "choices": [choice]}


class Handler(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self) -> None:
        self.route({"/healthz": self.served.health, "/v1/models": self.served.models}, "{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}"
        self.route({"/v1/chat/completions": self.served.chat, "/reload": self.served.reload}, body)

    def route(self, routes: dict[str, Any], body: str | bytes) -> None:
        status, answer = 404, {"error": {"message": "no such path"}}
        if do := routes.get(self.path):
            try:
                status, answer = 200, do(json.loads(body))
            except (KeyError, TypeError, ValueError, OSError) as error:
                status = 500 if isinstance(error, OSError) else 400
                answer = {"error": {"message": f"{type(error).__name__}: {error}"}}
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Requests hold what users asked: nothing of them is logged."""


def follow(served: Served) -> None:
    while True:
        time.sleep(1.0)
        try:
            served.reload({})
        except (OSError, ValueError, KeyError) as error:
            print(f"{served.link} can't be loaded: {error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("link", type=Path, help="the `current` link of a model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    args = parser.parse_args()
    Handler.served = Served(args.link)
    threading.Thread(target=follow, args=(Handler.served,), daemon=True).start()
    server = ThreadingHTTPServer((args.host, args.port), Handler)
    print(f"listening on http://{args.host}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
