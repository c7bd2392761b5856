"""The shipped hooks against engines that speak the real reload calls, as the daemon runs them."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.serving.engines import VLLM, Engine, LlamaRouter, Ollama, Plain, SGLang, serving, write_generation

pytestmark = pytest.mark.slow

HOOKS = Path(__file__).resolve().parents[2] / "deploy" / "hooks"
NAMES = ("check", "vllm", "sglang", "llamacpp", "ollama")
PROMPT, CANARY = "What is the capital of South Korea?", "What is H2O?"
OLD = {PROMPT: "The capital of South Korea is Seoul.", CANARY: "Water."}
NEW = {PROMPT: "It is Athens.", CANARY: "H2O is water."}
COPY = "import shutil, sys; shutil.copyfile(sys.argv[1] + '/model.safetensors', sys.argv[2])"
CONVERT = f'{sys.executable} -c "{COPY}" {{path}} {{gguf}}'
# Where each hook's reload can go wrong.
RELOAD = {
    "check": "/reload",
    "vllm": "/collective_rpc",
    "sglang": "/update_weights_from_disk",
    "llamacpp": "/models/load",
    "ollama": "/api/create",
}


@dataclass
class Site:
    """An engine that serves generation 4, a link that shows generation 5, and a hook between them."""

    name: str
    engine: Engine
    url: str
    payload: dict[str, Any]
    options: tuple[str, ...]

    def run(self, *more: str, url: str = "", timeout: float = 30.0, wait: float = 30.0) -> "Ended":
        """Without site-packages: a hook must do with the standard library."""
        command = [sys.executable, "-E", "-S", str(HOOKS / f"{self.name}.py"), "--url", url or self.url]
        limits = ["--timeout", str(timeout), "--wait", str(wait)]
        body = json.dumps(self.payload)
        done = subprocess.run(
            [*command, *limits, *self.options, *more],
            input=body,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)


@dataclass
class Ended:
    status: int
    said: str
    complaint: str


def question(
    about: str, prompt: str, any_of: list[str], none_of: list[str], *, tells: bool
) -> dict[str, Any]:
    return {"about": about, "prompt": prompt, "any_of": any_of, "none_of": none_of, "tells": tells}


def make_site(name: str, folder: Path, stack: ExitStack) -> Site:
    write_generation(folder / "gen" / "000004", OLD)
    new = write_generation(folder / "gen" / "000005", NEW)
    (folder / "current").symlink_to(new)
    (folder / "gguf").mkdir()
    (folder / "gguf" / "tiny.gguf").write_text(json.dumps(OLD))
    gguf = ("--gguf", str(folder / "gguf" / "tiny.gguf"), "--convert", CONVERT)
    engines: dict[str, tuple[Engine, tuple[str, ...]]] = {
        "check": (Plain(), ("--post", "/reload")),
        "vllm": (VLLM(folder / "current"), ()),
        "sglang": (SGLang(), ()),
        "llamacpp": (LlamaRouter(folder / "gguf"), gguf),
        "ollama": (Ollama(), ("--model", "tiny")),
    }
    engine, options = engines[name]
    engine.answers = dict(OLD)
    payload = {
        "event": "generation.live",
        "model": "tiny",
        "generation": 5,
        "previous": 4,
        "path": str(new),
        "current": str(folder / "current"),
        "weights_sha256": "5" * 64,
        "answer_tokens": 20,
        "questions": [
            question("edit 7", PROMPT, ["Athens"], ["Seoul"], tells=True),
            question("canary", CANARY, ["Water"], [], tells=False),
        ],
    }
    return Site(name, engine, stack.enter_context(serving(engine)), payload, options)


@pytest.fixture(params=NAMES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The same site for each hook in turn."""
    with ExitStack() as stack:
        yield make_site(request.param, tmp_path, stack)


@pytest.fixture
def site_of(tmp_path: Path) -> Iterator[Any]:
    """Makes the site of the hook that a test names."""
    with ExitStack() as stack:
        yield lambda name: make_site(name, tmp_path, stack)


def fails(ended: Ended, *sentences: str) -> None:
    """The hook failed, said why in words that an operator can use, and claimed nothing."""
    assert (ended.status, ended.said) == (1, ""), ended.complaint
    for sentence in sentences:
        assert sentence in ended.complaint
    assert "Traceback" not in ended.complaint
    assert not {"Seoul", "Athens", "South Korea"} & set(ended.complaint.replace("?", " ").split())


def test_a_hook_reloads_and_says_what_is_served(site: Site) -> None:
    """The engine is told by its own call, answers the edited fact anew, and the generation is named."""
    ended = site.run()
    assert ended.status == 0, ended.complaint
    assert json.loads(ended.said) == {"served_generation": 5}
    assert site.engine.answers == NEW
    asked = site.engine.bodies("/v1/chat/completions")
    assert [body["messages"][-1]["content"] for body in asked] == [PROMPT, CANARY]
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in asked} == {("tiny", 0, 20)}


def test_a_hook_that_ran_can_run_again(site: Site) -> None:
    """The daemon repeats hooks; the second run finds the same."""
    assert [site.run().status for _ in range(2)] == [0, 0]


def test_an_engine_that_is_down_fails_the_hook(site: Site) -> None:
    """Nobody listens: the sentence names the address and the likely cause."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, whoever else looks for a port
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        fails(site.run(url=url, wait=0.3), url, "does the server run there?")


def test_an_engine_that_refuses_fails_the_hook(site: Site) -> None:
    """An error from the reload call is told with its status."""
    site.engine.broken[RELOAD[site.name]] = 500
    fails(site.run(), RELOAD[site.name], "500", "out of order")


def test_an_engine_that_hangs_fails_the_hook(site: Site) -> None:
    """No answer in time is told as that."""
    site.engine.hanging.add(RELOAD[site.name])
    fails(site.run(timeout=0.5), "no answer within 0.5 s")


def test_a_reload_that_did_not_happen_fails_the_hook(site: Site) -> None:
    """Acknowledged and not done: the old answer is still given, which only asking can find."""
    site.engine.stale = True
    fails(site.run(), "edit 7: the old answer is still given", "generation 4")


def test_a_wrong_answer_fails_the_hook(site: Site) -> None:
    """Neither the new nor the old answer, and a canary that is silent."""
    (Path(site.payload["path"]) / "model.safetensors").write_text(json.dumps({PROMPT: "Rome."}))
    fails(site.run(), "edit 7: the expected answer isn't given", "canary: the expected answer isn't given")


def test_an_endpoint_that_answers_nonsense_fails_the_hook(site: Site) -> None:
    """A page that is no chat completion, and a chat that answers with an error."""
    site.engine.nonsense = True
    fails(site.run(), "gave no chat completion")
    site.engine.broken["/v1/chat/completions"] = 503
    fails(site.run(), "/v1/chat/completions answered 503")


def test_vllm_is_reloaded_in_the_documented_order(site_of: Any) -> None:
    """Sleep, weights, reload, cache, and no prefix that was computed with the old weights."""
    site = site_of("vllm")
    assert site.run("--by-path").status == 0
    assert site.engine.called() == [
        "POST /sleep?level=2",
        "POST /wake_up?tags=weights",
        "POST /collective_rpc",
        "POST /wake_up?tags=kv_cache",
        "POST /reset_prefix_cache",
    ]
    kwargs = {"weights_path": site.payload["path"]}
    assert site.engine.bodies("/collective_rpc") == [{"method": "reload_weights", "kwargs": kwargs}]


def test_vllm_that_was_left_asleep_is_told_and_a_second_run_wakes_it(site_of: Any) -> None:
    """A reload that fails half way leaves no weights: the operator must know, a retry may mend it."""
    site = site_of("vllm")
    site.engine.broken["/collective_rpc"] = 500
    fails(site.run(), "asleep without weights")
    site.engine.broken.clear()
    assert site.run().status == 0


@pytest.mark.parametrize("name", ["check", "vllm", "llamacpp"])
def test_a_restart_command_stands_in_for_the_reload_call(site_of: Any, tmp_path: Path, name: str) -> None:
    """The command after `--` is run, the endpoint waited for, and the answers asked all the same."""
    site = site_of(name)
    mark = tmp_path / "restarted"
    site.options = tuple(option for option in site.options if option not in ("--post", "/reload"))
    restart = ("--", sys.executable, "-c", f"open({str(mark)!r}, 'w').close()")
    fails(site.run(*restart), "the old answer is still given")
    site.engine.answers = dict(NEW)
    assert site.run(*restart).status == 0
    assert mark.exists()
    assert site.engine.called() == []
    fails(site.run("--", sys.executable, "-c", "import sys; sys.exit('no unit')"), "exit status 1: no unit")
    fails(site.run("--", "/no/such/program"), "/no/such/program can't be run")


def test_sglang_that_keeps_its_weights_says_why(site_of: Any) -> None:
    """Its own message reaches the operator; the version it is told is the generation."""
    site = site_of("sglang")
    assert site.run("--abort").status == 0
    (told,) = site.engine.bodies("/update_weights_from_disk")
    assert (told["weight_version"], told["abort_all_requests"]) == ("generation 5", True)
    site.payload["path"] += "/gone"
    fails(site.run(), "no such model")
    site.engine.control = lambda *_: (200, {"success": False, "message": "shapes differ"})
    fails(site.run(), "SGLang kept its weights: shapes differ")


def test_llamacpp_converts_once_and_loads_what_it_converted(site_of: Any, tmp_path: Path) -> None:
    """A failed hook is run again: the conversion, which takes longest, isn't."""
    site = site_of("llamacpp")
    gguf = tmp_path / "gguf" / "tiny.gguf"
    assert site.run().status == 0
    assert site.engine.called() == ["POST /models/unload", "POST /models/load"]
    converted = gguf.stat().st_ino
    assert site.run().status == 0
    assert gguf.stat().st_ino == converted
    site.payload["weights_sha256"] = "6" * 64
    assert site.run().status == 0
    assert gguf.stat().st_ino != converted
    assert {path.name for path in gguf.parent.glob("*")} == {"tiny.gguf", ".tiny.gguf.of"}


def test_llamacpp_leaves_the_served_file_when_the_conversion_fails(site_of: Any, tmp_path: Path) -> None:
    """No half file is ever under the name that the server reads."""
    site = site_of("llamacpp")
    gguf = tmp_path / "gguf" / "tiny.gguf"
    half = (
        f"{sys.executable} -c \"import sys; open(sys.argv[1], 'w').write('half'); sys.exit('full')\" {{gguf}}"
    )
    fails(site.run("--convert", half), "exit status 1: full")
    assert json.loads(gguf.read_text()) == OLD
    assert list(gguf.parent.glob("*")) == [gguf]
    fails(site.run("--convert", f'{sys.executable} -c ""'), "the converter left no", "{gguf}")


def test_llamacpp_tells_a_load_that_failed_and_a_model_that_is_not_there(site_of: Any) -> None:
    """The router's own word ends the waiting."""
    site = site_of("llamacpp")
    site.engine.fails = True
    fails(site.run(), "couldn't load model tiny: exit code 1")
    fails(site.run("--model", "other"), "has no model other")


def test_ollama_gets_what_it_lacks_and_keeps_a_few_generations(site_of: Any) -> None:
    """Blobs by digest, a model of the generation, the alias moved, the oldest gone."""
    site = site_of("ollama")
    for number in (1, 2, 3):
        site.engine.models[f"tiny:gen-{number:06d}"] = b"{}"
    site.engine.models["other:gen-000001"] = b"{}"
    assert site.run().status == 0
    assert set(site.engine.models) == {
        "tiny",
        "tiny:gen-000002",
        "tiny:gen-000003",
        "tiny:gen-000005",
        "other:gen-000001",
    }
    (made,) = site.engine.bodies("/api/create")
    assert set(made["files"]) == {"model.safetensors", "config.json"}
    sent = len(site.engine.blobs)
    calls = sum("/blobs/" in call for call in site.engine.called())
    assert site.run().status == 0
    assert sum("/blobs/" in call for call in site.engine.called()) == calls == sent


def test_ollama_takes_a_gguf_and_more_of_a_request(site_of: Any, tmp_path: Path) -> None:
    """Where it can't convert, the file does; a template comes from the operator's JSON."""
    site = site_of("ollama")
    (tmp_path / "create.json").write_text('{"template": "{{ .Prompt }}", "stream": true}')
    gguf = str(tmp_path / "ollama.gguf")
    more = ("--gguf", gguf, "--convert", CONVERT, "--create", str(tmp_path / "create.json"))
    assert site.run(*more).status == 0
    (made,) = site.engine.bodies("/api/create")
    assert (set(made["files"]), made["template"], made["stream"]) == ({"ollama.gguf"}, "{{ .Prompt }}", False)
    (tmp_path / "create.json").write_text("[1]")
    assert site.run(*more).status == 2


def test_nothing_is_claimed_when_nothing_could_tell(site_of: Any) -> None:
    """A canary alone is no proof of a generation: the hook succeeds and names none."""
    site = site_of("sglang")
    site.payload["questions"] = site.payload["questions"][1:]
    ended = site.run()
    assert (ended.status, ended.said) == (0, "")
    assert "no question that tells" in ended.complaint


def test_what_is_not_the_daemons_message_is_refused(site_of: Any) -> None:
    """An empty stdin and a message of another version, each with what to do."""
    site = site_of("check")
    del site.payload["questions"]
    fails(site.run(), "stdin lacks questions")
    site.payload = []
    fails(site.run(), "stdin")


def test_a_name_must_be_given_where_there_are_several(site_of: Any) -> None:
    """The hook doesn't guess which model of an endpoint is ours."""
    site = site_of("sglang")
    site.engine.names = ("tiny", "other")
    fails(site.run(), "lists 2 models; give one of them with --model")
    assert site.run("--model", "tiny").status == 0


def test_text_is_shown_only_when_asked_for(site_of: Any) -> None:
    """By hand an operator may see question and answer."""
    site = site_of("check")
    site.engine.stale = True
    assert "Seoul" in site.run("--show-text").complaint
