"""Publish hook for any OpenAI-compatible endpoint: reload it by a command or a POST, then ask what it serves.

    check.py --url http://127.0.0.1:8000                                 only ask
    check.py --url http://127.0.0.1:8000 --post /reload                  POST the generation there first
    check.py --url http://127.0.0.1:8000 -- systemctl restart my-server  run a command first

Knows no engine.
"""

import argparse
import sys

from serving_hook import Endpoint, Payload, parser, run, run_command, take_restart


def reload(args: argparse.Namespace, endpoint: Endpoint, payload: Payload) -> None:
    if args.restart:
        run_command(args.restart)
    endpoint.wait_until_up()
    if args.post:
        told = {key: payload[key] for key in ("generation", "path")}
        endpoint.call("POST", args.post, told)


def main() -> int:
    made = parser(__doc__, "http://127.0.0.1:8000")
    made.add_argument("--post", metavar="PATH", help="POST {generation, path} to this path of the endpoint")
    take_restart(made)
    args = made.parse_args()
    return run(args, lambda endpoint, payload: reload(args, endpoint, payload))


if __name__ == "__main__":
    sys.exit(main())
