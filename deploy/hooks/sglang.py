"""Publish hook for SGLang: load the new weights in place, then ask what it serves.

    sglang.py --url http://127.0.0.1:30000
    sglang.py --url http://127.0.0.1:30000 --abort     don't wait for running requests

Start SGLang on the link, `--model-path STATE/models/NAME/current`, so that it comes back with the live
generation after a crash. Call: POST /update_weights_from_disk, docs.sglang.io, "SGLang for RL Systems".
"""

import argparse
import sys

from serving_hook import Endpoint, HookError, Payload, parser, run


def reload(args: argparse.Namespace, endpoint: Endpoint, payload: Payload) -> None:
    body = {
        "model_path": payload["path"],
        "abort_all_requests": args.abort,
        "weight_version": f"generation {payload['generation']}",
    }
    answer = endpoint.call("POST", "/update_weights_from_disk", body)
    if not isinstance(answer, dict) or not answer.get("success"):
        said = answer.get("message", "") if isinstance(answer, dict) else ""
        raise HookError(f"SGLang kept its weights: {said or 'it gave no reason'}")


def main() -> int:
    made = parser(__doc__, "http://127.0.0.1:30000")
    made.add_argument("--abort", action="store_true", help="abort running requests")
    args = made.parse_args()
    return run(args, lambda endpoint, payload: reload(args, endpoint, payload))


if __name__ == "__main__":
    sys.exit(main())
