"""Publish hook for vLLM: load the new weights in place or restart it, then ask what it serves.

    vllm.py --url http://127.0.0.1:8000                             in place, through the link
    vllm.py --url http://127.0.0.1:8000 --by-path                   in place, by the generation's directory
    vllm.py --url http://127.0.0.1:8000 -- systemctl restart vllm   restart

Start vLLM on the link, `vllm serve STATE/models/NAME/current`: a restart then finds the new generation by
itself. In place takes seconds but needs VLLM_SERVER_DEV_MODE=1 and --enable-sleep-mode; whoever reaches the
development endpoints can run code, so keep the port on loopback. `--by-path` is for versions whose
`reload_weights` takes `weights_path`. Calls: docs.vllm.ai, "Sleep Mode", level 2.
"""

import argparse
import sys

from serving_hook import Endpoint, HookError, Payload, parser, run, run_command, take_restart


def reload(args: argparse.Namespace, endpoint: Endpoint, payload: Payload) -> None:
    if args.restart:
        run_command(args.restart)
        endpoint.wait_until_up("/health")
        return
    rpc: Payload = {"method": "reload_weights"}
    if args.by_path:
        rpc["kwargs"] = {"weights_path": payload["path"]}
    endpoint.call("POST", "/sleep?level=2")  # running requests are aborted, weights and KV cache dropped
    try:
        endpoint.call("POST", "/wake_up?tags=weights")
        endpoint.call("POST", "/collective_rpc", rpc)
        endpoint.call("POST", "/wake_up?tags=kv_cache")
        endpoint.call("POST", "/reset_prefix_cache")  # what it holds was computed with the old weights
    except HookError as error:
        raise HookError(
            f"{error}; vLLM is asleep without weights now: restart it if a retry fails"
        ) from error


def main() -> int:
    made = parser(__doc__, "http://127.0.0.1:8000")
    made.add_argument("--by-path", action="store_true", help="name the directory to load from")
    take_restart(made)
    args = made.parse_args()
    return run(args, lambda endpoint, payload: reload(args, endpoint, payload))


if __name__ == "__main__":
    sys.exit(main())
