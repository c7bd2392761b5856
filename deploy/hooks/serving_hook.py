"""What the publish hooks share: the daemon's message, HTTP, and asking the endpoint what it serves.

Standard library only: hooks run beside an engine, where nothing of Palimpsest need be installed. Knows the
contract with the daemon and the OpenAI-compatible chat endpoint. Doesn't know how any engine reloads.

stdin: one JSON object: `generation`, `previous`, `path` (the served directory, resolved), `current` (the link
to it), `weights_sha256`, `model`, `reason`, `at`, `answer_tokens`, and `questions`, a list of `about`,
`prompt`, `any_of`, `none_of` and `tells` (whether the previous generation would fail it). stdout:
{"served_generation": N} once all were answered as they should be and one of them tells. Exit status 1 and a
sentence on stderr otherwise: the daemon logs it, so it holds no fact text.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

API_KEY = "PALIMPSEST_HOOK_API_KEY"  # an environment variable, as arguments are there for all to see
CONVERT = "python3 convert_hf_to_gguf.py {path} --outfile {gguf} --outtype f16"
POLL_SECONDS = 0.2
EXCERPT = 300  # characters of an engine's refusal that are told
_GROUPED_DIGITS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_WORD = re.compile(r"(?<!\w)-?\d+(?:\.\d+)+|(?<!\w)-\d+|\w+(?:\+\+|#)?")
_ARTICLES = ("the", "a", "an")

# No proxy of the environment: what is asked is on this machine or near it.
_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

Payload = dict[str, Any]


class HookError(Exception):
    """What went wrong and what to do, without fact text."""


class FinalError(HookError):
    """Waiting longer won't help."""


class Endpoint:
    """An engine's HTTP address. `wait` is how many seconds it may take to come up or to load."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.url = args.url.rstrip("/")
        self.timeout, self.wait = args.timeout, args.wait
        self.show_text = args.show_text

    def call(self, method: str, path: str, body: Any = None, *, quiet: bool = False) -> Any:
        """The JSON that is answered, None for an empty or other answer. `body` is JSON, or a file to send.
        `quiet` keeps a refusal's text, which may quote what was asked, out of the error."""
        status, answer = self.send(method, path, body)
        if not 200 <= status < 300:
            said = "" if quiet else f": {answer.decode(errors='replace')[:EXCERPT].strip()}"
            raise HookError(f"{method} {self.url}{path} answered {status}{said}")
        try:
            return json.loads(answer)
        except ValueError:
            return None

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and bytes of any answer; HookError when there is none in time."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(API_KEY):
            headers["Authorization"] = f"Bearer {key}"
        data = body
        if hasattr(body, "fileno"):
            headers |= {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(os.fstat(body.fileno()).st_size),
            }
        elif body is not None:
            data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with _OPEN(request, timeout=self.timeout) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except TimeoutError as error:
            raise HookError(f"{method} {self.url}{path} got no answer within {self.timeout:g} s") from error
        except (OSError, ValueError) as error:  # URLError is an OSError
            cause = getattr(error, "reason", error)
            if isinstance(cause, TimeoutError):
                cause = f"no answer within {self.timeout:g} s"
            raise HookError(
                f"{method} {self.url}{path} failed: {cause}; does the server run there?"
            ) from error

    def wait_for(self, ready: Callable[[], bool], what: str) -> None:
        """Until `ready`; while it raises HookError the engine isn't up yet."""
        deadline = time.monotonic() + self.wait
        last = ""
        while True:
            try:
                if ready():
                    return
            except FinalError:
                raise
            except HookError as error:
                last = f"; last: {error}"
            if time.monotonic() >= deadline:
                raise HookError(f"{what} not within {self.wait:g} s{last}")
            time.sleep(POLL_SECONDS)

    def wait_until_up(self, path: str = "/v1/models") -> None:
        self.wait_for(lambda: self.send("GET", path)[0] == 200, f"GET {self.url}{path} answered 200")

    def only_model(self) -> str:
        """The name that the endpoint gives its model."""
        found = [str(row["id"]) for row in (self.call("GET", "/v1/models") or {}).get("data", ())]
        if len(found) != 1:
            raise HookError(f"{self.url}/v1/models lists {len(found)} models; give one of them with --model")
        return found[0]

    def ask(self, model: str, prompt: str, tokens: int) -> str:
        """The greedy answer to one question, as the gates put it: no system prompt of our own."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": tokens,
            "stream": False,
        }
        answer = self.call("POST", "/v1/chat/completions", body, quiet=True)
        try:
            return str(answer["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise HookError(f"{self.url}/v1/chat/completions gave no chat completion") from error


def verify(endpoint: Endpoint, model: str, payload: Payload) -> None:
    """Ask every question; HookError names those that weren't answered as they should be."""
    faults = []
    for question in payload["questions"]:
        answer = endpoint.ask(model, question["prompt"], int(payload["answer_tokens"]))
        if fault := judge(question, answer):
            faults.append(f"{question['about']}: {fault}")
            if endpoint.show_text:
                print(f"{question['prompt']!r} was answered {answer!r}", file=sys.stderr)
    if faults:
        number = payload["generation"]
        raise HookError(
            f"{endpoint.url} doesn't answer as generation {number} does ({'; '.join(faults)}); it may still "
            f"serve generation {payload['previous']}: reload it by hand, or run the hook with --show-text"
        )


def judge(question: Payload, answer: str) -> str:
    """Empty when the answer is as it should be, else what is wrong with it."""
    said = words(answer)
    if any(holds(said, words(name)) for name in question["none_of"]):
        return "the old answer is still given"
    if question["any_of"] and not any(holds(said, words(name)) for name in question["any_of"]):
        return "the expected answer isn't given"
    return ""


def words(text: str) -> list[str]:
    """Words without case, accents and grouping of digits: a short form of what the gates compare."""
    plain = unicodedata.normalize("NFKD", _GROUPED_DIGITS.sub("", text).casefold())
    return _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))


def holds(said: Sequence[str], name: Sequence[str]) -> bool:
    """Whether a name, less its article, stands among the words."""
    wanted = list(name[1:] if len(name) > 1 and name[0] in _ARTICLES else name)
    places = range(len(said) - len(wanted) + 1)
    return bool(wanted) and any(list(said[i : i + len(wanted)]) == wanted for i in places)


def run_command(argv: Sequence[str]) -> None:
    """A restart or conversion; HookError when it doesn't exit 0. The daemon's own limit ends it in time."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise HookError(f"{argv[0]} can't be run: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace")[-EXCERPT:].strip()
        raise HookError(f"{argv[0]} ended with exit status {done.returncode}: {said}")


def convert(template: str, payload: Payload, gguf: Path) -> None:
    """Write the generation as `gguf` in one step, by a command in which {path} and {gguf} are filled in.
    Nothing is done when the file is of these weights already: the daemon runs a failed hook again."""
    stamp = gguf.with_name(f".{gguf.name}.of")
    of = str(payload["weights_sha256"])
    if gguf.is_file() and stamp.is_file() and stamp.read_text("utf-8") == of:
        return
    fresh = gguf.with_name(f".{gguf.name}.new")
    try:
        filled = (a.replace("{path}", str(payload["path"])) for a in shlex.split(template))
        run_command([a.replace("{gguf}", str(fresh)) for a in filled])
        if not fresh.is_file():
            raise HookError(f"the converter left no {fresh}; its command needs {{path}} and {{gguf}}")
        stamp.unlink(missing_ok=True)
        fresh.replace(gguf)
        stamp.write_text(of, "utf-8")
    except OSError as error:
        raise HookError(f"{gguf} can't be written: {error}") from error
    finally:
        fresh.unlink(missing_ok=True)


def parser(doc: str | None, url: str) -> argparse.ArgumentParser:
    """The arguments that every hook takes; `url` is where the engine listens unless told otherwise."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--url", default=url, help=f"where the engine listens (default {url})")
    made.add_argument("--model", help="the name it serves the model under (default: its only one)")
    made.add_argument("--timeout", type=float, default=60.0, help="seconds for one request (default 60)")
    made.add_argument("--wait", type=float, default=300.0, help="seconds to come up or load (default 300)")
    made.add_argument("--show-text", action="store_true", help="print wrong answers; never in the daemon")
    return made


def take_restart(made: argparse.ArgumentParser) -> None:
    made.add_argument("restart", nargs="*", metavar="-- COMMAND", help="run this instead of reloading")


def run(args: argparse.Namespace, reload: Callable[[Endpoint, Payload], str | None]) -> int:
    """Read the message, `reload` (which returns the model's name where it knows it), verify, say so."""
    try:
        payload = read_payload(sys.stdin.buffer.read())
        endpoint = Endpoint(args)
        name = reload(endpoint, payload)
        verify(endpoint, args.model or name or endpoint.only_model(), payload)
    except (HookError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if any(question["tells"] for question in payload["questions"]):
        print(json.dumps({"served_generation": payload["generation"]}))
    else:
        print("reloaded; there was no question that tells this generation from the last", file=sys.stderr)
    return 0


def read_payload(body: bytes) -> Payload:
    try:
        payload: Payload = json.loads(body)
        missing = {"generation", "previous", "path", "questions", "weights_sha256", "answer_tokens"} - set(
            payload
        )
    except (ValueError, TypeError) as error:
        raise HookError(
            f"stdin isn't the daemon's JSON: {error}; run it as a [[publish.hooks]] entry"
        ) from error
    if missing:
        raise HookError(f"stdin lacks {', '.join(sorted(missing))}; are hook and daemon of one version?")
    return payload
