"""Publish hook for llama.cpp's server: convert to GGUF, load it again, then ask what it serves.

    llamacpp.py --gguf /srv/gguf/support.gguf --model support
    llamacpp.py --gguf /srv/gguf/support.gguf -- systemctl restart llama-server

The first form speaks to a router, `llama-server --models-dir /srv/gguf`, which unloads and loads `support` (a
GGUF file's name is its model's); the second restarts a server that was started with `-m` on the file.
`--convert` is the command that writes {gguf} from {path}. A quantised file is not what the gates judged:
prefer f16 or bf16, or watch what this hook finds. Calls: llama.cpp, tools/server/README.md, "Using multiple
models".
"""

import argparse
import sys
from pathlib import Path

from serving_hook import (
    CONVERT,
    Endpoint,
    FinalError,
    HookError,
    Payload,
    convert,
    parser,
    run,
    run_command,
    take_restart,
)


def reload(args: argparse.Namespace, endpoint: Endpoint, payload: Payload) -> str | None:
    convert(args.convert, payload, args.gguf)
    if args.restart:
        run_command(args.restart)
        endpoint.wait_until_up("/health")
        return None
    name = str(args.model or args.gguf.stem)
    if status(endpoint, name, look="?reload=1").get("value") != "unloaded":
        order(endpoint, "/models/unload", name, already=("unloaded",))
        endpoint.wait_for(lambda: status(endpoint, name).get("value") == "unloaded", f"model {name} unloaded")
    order(endpoint, "/models/load", name, already=("loading", "loaded"))
    endpoint.wait_for(lambda: is_loaded(endpoint, name), f"model {name} loaded")
    return name


def order(endpoint: Endpoint, path: str, name: str, already: tuple[str, ...]) -> None:
    """The router refuses what it is doing by itself, after a look at its folder or for a request."""
    try:
        endpoint.call("POST", path, {"model": name})
    except HookError:
        if status(endpoint, name).get("value") not in already:
            raise


def is_loaded(endpoint: Endpoint, name: str) -> bool:
    found = status(endpoint, name)
    if found.get("failed"):
        raise FinalError(f"the router couldn't load model {name}: exit code {found.get('exit_code')}")
    return found.get("value") == "loaded"


def status(endpoint: Endpoint, name: str, look: str = "") -> Payload:
    """The router's word on a model; with `look` it lists its folder anew."""
    models = (endpoint.call("GET", f"/models{look}") or {}).get("data", ())
    found = next((row for row in models if row.get("id") == name), None)
    if found is None or "status" not in found:
        raise HookError(f"{endpoint.url}/models has no model {name} to load; is it a router on the folder?")
    return dict(found["status"])


def main() -> int:
    made = parser(__doc__, "http://127.0.0.1:8080")
    made.add_argument("--gguf", type=Path, required=True, help="the file that the server serves")
    made.add_argument("--convert", default=CONVERT, help=f"default: {CONVERT}")
    take_restart(made)
    args = made.parse_args()
    return run(args, lambda endpoint, payload: reload(args, endpoint, payload))


if __name__ == "__main__":
    sys.exit(main())
