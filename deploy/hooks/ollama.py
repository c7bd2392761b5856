"""Publish hook for Ollama: create a model of the generation, move the served name to it, then ask.

    ollama.py --model support
    ollama.py --model support --gguf /srv/gguf/support.gguf --convert "python3 ... {path} --outfile {gguf}"
    ollama.py --model support --create create.json

Ollama keeps a copy of its own: files go there as blobs, those it has already (the shared shard) are not sent
again. The model is NAME:gen-000042, and NAME an alias of it, so that going back is one copy; the newest
`--keep` of them stay. Without --gguf Ollama converts the safetensors itself, for the architectures it knows.
create.json is merged into the request (template, parameters, quantize). Calls: Ollama, docs/api.md.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from serving_hook import CONVERT, Endpoint, HookError, Payload, convert, parser, run

SAFETENSORS = (
    "*.safetensors",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
)
CHUNK = 1024 * 1024


def reload(args: argparse.Namespace, endpoint: Endpoint, payload: Payload) -> str:
    if args.gguf:
        convert(args.convert, payload, args.gguf)
        paths = [args.gguf]
    else:
        paths = sorted({file for name in SAFETENSORS for file in Path(payload["path"]).glob(name)})
    if not paths:
        raise HookError(f"{payload['path']} has no safetensors: is the model's folder mounted here?")
    files = {path.name: push(endpoint, path) for path in paths}
    made = f"{args.model}:gen-{payload['generation']:06d}"
    request = {**args.create, "model": made, "files": files, "stream": False}
    answer = endpoint.call("POST", "/api/create", request)
    if not isinstance(answer, dict) or answer.get("status") != "success":
        said = answer.get("error", "") if isinstance(answer, dict) else ""
        raise HookError(f"Ollama didn't create {made}: {said or 'it gave no reason'}")
    endpoint.call("POST", "/api/copy", {"source": made, "destination": args.model})
    forget(endpoint, args.model, made, args.keep)
    return str(args.model)


def push(endpoint: Endpoint, path: Path) -> str:
    """Make sure that Ollama has the file; returns its digest."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
        name = f"sha256:{digest.hexdigest()}"
        if endpoint.send("HEAD", f"/api/blobs/{name}")[0] != 200:
            file.seek(0)
            endpoint.call("POST", f"/api/blobs/{name}", file)
    return name


def forget(endpoint: Endpoint, name: str, made: str, keep: int) -> None:
    """Delete models of other generations but for the `keep` highest; blobs in use stay."""
    tags = (endpoint.call("GET", "/api/tags") or {}).get("models", ())
    others = sorted(str(tag["name"]) for tag in tags if str(tag["name"]).startswith(f"{name}:gen-"))
    for old in [tag for tag in others if tag != made][: -keep or None]:
        endpoint.call("DELETE", "/api/delete", {"model": old})


def read_json(name: str) -> Payload:
    try:
        return dict(json.loads(Path(name).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{name} isn't a JSON object: {error}") from error


def main() -> int:
    made = parser(__doc__, "http://127.0.0.1:11434")
    made.add_argument("--gguf", type=Path, help="convert to this file and send it instead of the safetensors")
    made.add_argument("--convert", default=CONVERT, help=f"default: {CONVERT}")
    made.add_argument("--create", type=read_json, default={}, metavar="FILE", help="more for /api/create")
    made.add_argument("--keep", type=int, default=2, help="older generations that stay in Ollama (default 2)")
    args = made.parse_args()
    if not args.model or ":" in args.model:
        made.error("give the served name with --model, without a tag")
    return run(args, lambda endpoint, payload: reload(args, endpoint, payload))


if __name__ == "__main__":
    sys.exit(main())
