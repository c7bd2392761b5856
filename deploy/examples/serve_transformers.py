"""An OpenAI-compatible endpoint for one model on `current`, which follows the link: an example, for one user.

    serve_transformers.py STATE/models/NAME/current [--port 8000]

/healthz, /v1/models, /v1/chat/completions (greedy, no streaming). Each request follows the link first. While
a generation can't be loaded the one before goes on answering, and only /reload, for a publish hook, says so.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer


class Served:
    """The loaded generation; one answer or one load at a time."""

    def __init__(self, link: Path) -> None:
        self.link, self.path, self.number = link.absolute(), Path(), -1
        self.load()

    def load(self) -> None:
        if (path := self.link.resolve()) != self.path:
            number = json.loads((path / "manifest.json").read_text("utf-8"))["number"]
            tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_pretrained(
                path, local_files_only=True, use_safetensors=True
            )
            self.tokenizer, self.model, self.path, self.number = tokenizer, model.eval(), path, number

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        try:
            self.load()
        except (OSError, ValueError, KeyError) as error:
            if path == "/reload":
                return 500, {"error": {"message": f"{self.link} can't be loaded: {error}"}}
        if path in ("/healthz", "/reload"):
            return 200, {"status": "ok", "generation": self.number}
        name = self.link.parent.name
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": name, "object": "model"}]}
        if path != "/v1/chat/completions":
            return 404, {"error": {"message": "no such path"}}
        try:
            return 200, {"object": "chat.completion", "model": name, "choices": [self.chat(**body)]}
        except (KeyError, TypeError, ValueError) as error:
            return 400, {"error": {"message": f"{type(error).__name__}: {error}"}}

    def chat(self, messages: Any, max_tokens: int = 64, **_: Any) -> Any:
        asked = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        said = self.model.generate(**asked, max_new_tokens=max_tokens, do_sample=False)
        text = self.tokenizer.decode(said[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        return {"index": 0, "message": {"role": "assistant", "content": text.strip()}}


class Handler(BaseHTTPRequestHandler):
    served: Served
    timeout = 10  # a silent client mustn't hold up the others

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
            status, answer = self.served.answer(self.path, body)
        except ValueError:
            status, answer = 400, {"error": {"message": "the body isn't JSON"}}
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        """Requests hold what users asked: nothing of them is logged."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("link", type=Path, help="the `current` link of a model")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    args = parser.parse_args()
    Handler.served, server = Served(args.link), HTTPServer(("127.0.0.1", args.port), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
