"""The command line: arguments in, exit status out.

Knows every command's arguments. Doesn't know what a command does: each is a function of the parsed
arguments and the configuration (`daemon.commands_*`).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, NoReturn

import shtab

from daemon import (
    bench,
    commands_approve,
    commands_explain,
    commands_keep,
    commands_model,
    commands_queue,
    commands_report,
    commands_run,
    demo,
)
from daemon.config import Config, load
from daemon.console import show
from daemon.orders import OrderFailed
from daemon.vitals import our_version
from store import failpoints
from store.errors import (
    EXIT_CODES,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    ConfigError,
    FactFileError,
    PalimpsestError,
    UsageError,
)

Command = Callable[[argparse.Namespace, Config], int]
EXAMPLES = {
    "init": ("init", "init --state /srv/bot --model /srv/models/bot"),
    "fetch-model": ("fetch-model",),
    "run": ("run", "run --config /etc/palimpsest/bot.toml"),
    "demo": ("demo", "demo --model /srv/models/bot --keep"),
    "submit": ("submit facts.jsonl", "submit --wait facts.csv", "submit --dry-run facts.yaml"),
    "plan": ("plan", "plan facts.jsonl"),
    "status": ("status", "status --state /srv/bot --json"),
    "facts": ("facts", "facts south korea"),
    "history": ("history", 'history "South Korea" capital'),
    "explain": ("explain 12", 'explain "South Korea" capital'),
    "ask": (
        'ask "What is the capital of South Korea?"',
        'ask --as-of 2026-01-31 "The capital of South Korea is"',
    ),
    "diff": ("diff 3 4", "diff 0 4 --json"),
    "materialize": ("materialize --generation 3 --out ./bot-3", "materialize --as-of 2026-01-31 --out ./bot"),
    "rollback": ("rollback --to 3", "rollback --edit 12", 'rollback --dry-run --fact "South Korea" capital'),
    "pause": ("pause",),
    "resume": ("resume",),
    "retry": ("retry 12",),
    "cancel": ("cancel 12",),
    "approvals": ("approvals", "approvals --json"),
    "approve": ("approve 12", "approve 12-61 70"),
    "pin": ("pin 3", "pin 3 --off"),
    "report": ("report --out report.html",),
    "backup": ("backup", "backup --to /mnt/backups"),
    "restore": ("restore --state /srv/bot /mnt/backups/20260131T120000Z", "restore --replace BACKUP"),
    "verify": ("verify", "verify --json"),
    "doctor": ("doctor", "doctor --config /etc/palimpsest/bot.toml"),
    "gc": ("gc --dry-run", "gc"),
    "bench": ("bench --cases cases.jsonl --n 20 --json report.json",),
    "config": ("config check /etc/palimpsest/bot.toml",),
    "config check": ("config check", "config check /etc/palimpsest/bot.toml --json"),
    "completion": (
        "completion bash > ~/.local/share/bash-completion/completions/palimpsest",
        "completion zsh > ~/.zfunc/_palimpsest",
    ),
}


class Interrupted(PalimpsestError):
    """The user has had enough."""

    exit_code = EXIT_INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """argparse exits with 2 on a usage error, which here means that a plan has changes."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("read command line", self.prog, message, f"see `{self.prog} --help`")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    named, as_json = " ".join(arguments[:1]), "--json" in arguments
    try:
        failpoints.arm(os.environ)
        refuse_python_daemon()
        args = make_parser().parse_args(arguments)
        config = load(args.config or _found_config(args.state), args.state)
        command: Command = args.command
        return command(args, config)
    except PalimpsestError as error:
        return _report(error, as_json=as_json)
    except KeyboardInterrupt:
        return _report(Interrupted("run command", named, "interrupted"), as_json=as_json)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        told = PalimpsestError("run command", str(error.filename or named), error.strerror or str(error))
        return _report(told, as_json=as_json)


def refuse_python_daemon(name: str = "python-daemon") -> None:
    """Another distribution also installs a package called `daemon`: side by side, neither can be trusted."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return
    raise ConfigError(
        "start",
        name,
        "it is installed in the same environment and has the same import name",
        "install palimpsest-daemon in a virtual environment of its own",
    )


def _found_config(state: Path | None) -> Path | None:
    """`config.toml` in the state directory, when there is one."""
    path = (state or Config().daemon.state_dir) / "config.toml"
    return path if path.is_file() else None


def _report(error: PalimpsestError, *, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": error.as_dict()}, ensure_ascii=False))
    elif isinstance(error, FactFileError):
        print(f"palimpsest: {error.line}:{error.column}: {error}", file=sys.stderr)
    else:
        print(f"palimpsest: {error}", file=sys.stderr)
    return error.status if isinstance(error, OrderFailed) else error.exit_code


def make_parser() -> argparse.ArgumentParser:
    place = _Parser(add_help=False)
    place.add_argument("--state", type=Path, metavar="DIR", help="state directory (default: ./var)")
    place.add_argument("--config", type=Path, metavar="FILE", help="configuration (default: DIR/config.toml)")
    common = _Parser(add_help=False, parents=[place])
    common.add_argument("--json", action="store_true", help="print JSON")
    codes = "\n".join(f"  {code:3}  {meaning}" for code, meaning in EXIT_CODES.items())
    parser = _Parser(
        prog="palimpsest",
        description="Keeps a compact language model's facts current.",
        epilog=f"exit status:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"palimpsest {our_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, command: Command, help: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name, parents=[common], help=help, **told(name, help)
        )
        made.set_defaults(command=command)
        return made

    _add_installation(add)
    _add_facts(add)
    _add_weights(add)
    measured = "measure the editor on cases"  # its --json takes a file: the report is the product
    benched = commands.add_parser("bench", parents=[place], help=measured, **told("bench", measured))
    bench.add_arguments(benched)
    benched.set_defaults(command=lambda args, _config: bench.main(args))
    checked = "check a configuration"
    made = commands.add_parser("config", help=checked, **told("config", checked))
    below = made.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    faults = "list every fault of a configuration"
    check = below.add_parser("check", parents=[common], help=faults, **told("config check", faults))
    check.add_argument("file", nargs="?", type=Path, metavar="FILE")
    check.set_defaults(command=commands_run.config_check)
    script = "print a script that completes commands in a shell"
    shell = commands.add_parser("completion", help=script, **told("completion", script))
    shell.add_argument("shell", choices=shtab.SUPPORTED_SHELLS)
    shell.add_argument("--json", action="store_true", help="print JSON")
    shell.set_defaults(command=completion, config=None, state=None)
    return parser


def told(name: str, description: str) -> dict[str, Any]:
    """A command's help: what it does, then how it is typed."""
    lines = "\n".join(f"  palimpsest {example}" for example in EXAMPLES[name])
    shown = argparse.RawDescriptionHelpFormatter
    return {"description": description, "epilog": f"examples:\n{lines}", "formatter_class": shown}


def completion(args: argparse.Namespace, _config: Config) -> int:
    script = shtab.complete(make_parser(), args.shell)
    show({"shell": args.shell, "script": script}, script, as_json=args.json)
    return EXIT_OK


Add = Callable[[str, Command, str], argparse.ArgumentParser]


def _add_installation(add: Add) -> None:
    init = add("init", commands_run.init, "make a state directory from a model")
    init.add_argument("--model", metavar="DIR", help='Hugging Face directory, or "default"')
    add("fetch-model", commands_run.fetch_model, "fetch and verify the default model")
    add("run", commands_run.run, "run the daemon")
    demo.add_arguments(add("demo", demo.run, "show the whole path on a scratch state directory"))
    backup = add("backup", commands_keep.backup, "copy what can't be had from elsewhere, and verify the copy")
    backup.add_argument("--to", type=Path, metavar="DIR", help="on another disk (default: backups/)")
    restore = add("restore", commands_keep.restore, "make a state directory again from a backup")
    restore.add_argument("backup", type=Path, metavar="BACKUP", help="one of the folders in backups/")
    restore.add_argument("--model", metavar="DIR", help="where the base comes from (default: [model] source)")
    restore.add_argument("--replace", action="store_true", help="move what is there into replaced/ first")
    add("verify", commands_keep.verify, "check every byte of ledger, generations, blobs, files and backups")
    add("doctor", commands_keep.examine, "look for what usually is wrong, and say what to do")
    gc = add("gc", commands_run.gc, "remove what the keep policy lets go")
    gc.add_argument("--dry-run", action="store_true", help="only say what would go; exit status 2: something")


def _add_facts(add: Add) -> None:
    submit = add("submit", commands_queue.submit, "put fact files into the inbox")
    submit.add_argument("files", nargs="+", type=Path, metavar="FILE")
    submit.add_argument("--wait", action="store_true", help="until every fact that is due has settled")
    submit.add_argument("--dry-run", action="store_true", help="only say what would change, like `plan FILE`")
    submit.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS", help="with --wait")
    plan = add(
        "plan", commands_queue.plan, "show what is queued, or what files would do; exit status 2: changes"
    )
    plan.add_argument("files", nargs="*", type=Path, metavar="FILE")
    add("status", commands_queue.status, "show what is going on")
    facts = add("facts", commands_queue.facts, "list facts, wanted and served")
    facts.add_argument("search", nargs="*", metavar="WORD")
    history = add("history", commands_queue.history, "show the history of a fact, or of the generations")
    history.add_argument("fact", nargs="*", metavar="SUBJECT RELATION")
    explain = add("explain", commands_explain.explain, "show what became of an edit, or of a fact, and why")
    explain.add_argument("what", nargs="+", metavar="EDIT | SUBJECT RELATION")
    report = add("report", commands_report.report, "write facts, edits, readings and rollbacks as one page")
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file to write")


def _add_weights(add: Add) -> None:
    ask = add("ask", commands_model.ask, "ask the model")
    ask.add_argument("prompts", nargs="+", metavar="PROMPT")
    when = ask.add_mutually_exclusive_group()
    when.add_argument(
        "--as-of", type=commands_model.moment, metavar="DATE", help="the model served then (UTC)"
    )
    when.add_argument("--generation", type=int, metavar="N")
    diff = add("diff", commands_model.diff, "show which answers of two generations differ")
    diff.add_argument("one", type=int, metavar="GENERATION")
    diff.add_argument("other", type=int, metavar="GENERATION")
    past = add("materialize", commands_model.materialize_past, "write the model of a generation or a date")
    then = past.add_mutually_exclusive_group(required=True)
    then.add_argument("--generation", type=int, metavar="N")
    then.add_argument("--as-of", type=commands_model.moment, metavar="DATE", help="the one served then (UTC)")
    past.add_argument("--out", type=Path, required=True, metavar="DIR", help="a directory to be made")
    rollback = add("rollback", commands_model.rollback, "take changes of the weights back")
    what = rollback.add_mutually_exclusive_group(required=True)
    what.add_argument("--to", type=int, metavar="GENERATION")
    what.add_argument("--edit", type=int, metavar="EDIT")
    what.add_argument("--fact", nargs=2, metavar=("SUBJECT", "RELATION"))
    rollback.add_argument("--force", action="store_true", help="with --to: although it isn't known good")
    rollback.add_argument("--dry-run", action="store_true", help="only say what would be done; exit status 2")
    add("pause", commands_model.pause, "stop editing after the edit in work")
    add("resume", commands_model.resume, "go on editing")
    for name, command, text in (
        ("retry", commands_model.retry, "queue a held, failed or rolled back edit again"),
        ("cancel", commands_model.cancel, "take an edit out of the queue"),
    ):
        add(name, command, text).add_argument("edit", type=int, metavar="EDIT")
    add("approvals", commands_approve.approvals, "list the edits that wait for approval")
    approve = add("approve", commands_approve.approve, "let edits through that wait for approval")
    approve.add_argument("edits", nargs="+", type=commands_approve.edit_range, metavar="EDIT | FIRST-LAST")
    pin = add("pin", commands_model.pin, "keep a generation's directory")
    pin.add_argument("generation", type=int, metavar="GENERATION")
    pin.add_argument("--off", action="store_true", help="no longer")


if __name__ == "__main__":
    sys.exit(main())
