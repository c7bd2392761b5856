"""`palimpsest bench`: editing methods measured on a file of cases, as a table, as JSON and as a picture.

Knows arguments, where the model comes from and where reports go. Doesn't know how anything is
measured (`policies.editing.bench`) or shown (`daemon.bench_table`, `daemon.bench_plot`). Runs in this
process: torch is imported when it begins.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon import bench_plot, bench_table, console, fetch
from daemon.initialise import source_directory
from store.disk import write_atomic
from store.errors import UsageError

Report = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=Path, required=True, metavar="FILE", help="cases, JSON Lines")
    parser.add_argument("--n", type=int, default=20, metavar="N", help="how many, each alone (default 20)")
    parser.add_argument("--sequential", type=int, metavar="N", help="instead: N of them, all in one model")
    parser.add_argument("--skip", type=int, default=0, metavar="K", help="begin after the first K cases")
    parser.add_argument(
        "--live",
        type=int,
        default=0,
        metavar="N",
        help="with single edits: say that N other facts are live, to see what a long ledger costs",
    )
    parser.add_argument("--json", dest="out", type=Path, metavar="OUT", help="write the report there")
    parser.add_argument("--png", type=Path, metavar="OUT", help="draw efficacy and retention against N there")
    parser.add_argument(
        "--with",
        dest="earlier",
        type=Path,
        action="append",
        default=[],
        metavar="REPORT",
        help="show an earlier report's points too; may be repeated",
    )
    parser.add_argument(
        "--recipe",
        action="append",
        metavar="NAME[,NAME]",
        help="recipe of the editor, or a baseline (see the README); several are compared",
    )
    parser.add_argument(
        "--unknown", action="store_true", help="also the cases whose old answer the base doesn't give"
    )
    parser.add_argument("--model", default="default", metavar="DIR", help="Hugging Face directory")


def main(args: argparse.Namespace) -> int:
    """Measure every recipe on the same cases, print the table, write report and picture."""
    if not args.cases.is_file():
        raise UsageError(
            "bench", str(args.cases), "no such file", "give a file of cases, one JSON object a line"
        )
    earlier = [read_report(path) for path in args.earlier]
    if args.png:
        bench_plot.require()  # before hours of measuring, not after
    from policies.editing.baselines.registry import method_named
    from policies.editing.cases import read_cases

    recipes = recipe_names(args.recipe)
    for name in recipes:
        method_named(name)
    cases = read_cases(args.cases, args.sequential or args.n, args.skip)
    if not cases:
        raise UsageError("bench", str(args.cases), "it holds no case")
    head = {
        "recipe": ",".join(recipes),
        "mode": "sequential" if args.sequential else "single",
        "cases": args.cases.name,
        "skip": args.skip,
        "n": len(cases),
        "live": args.live,
        "unknown": args.unknown,
    }

    def publish(report: Report) -> None:
        if args.out:
            write_atomic(args.out, (json.dumps(report, indent=2) + "\n").encode())

    report = measure(source_directory(args.model), cases, recipes, head, publish)
    print(bench_table.table([*earlier, report]))
    if args.png:
        bench_plot.draw([*earlier, report], args.png)
    return 0


def recipe_names(given: Sequence[str] | None) -> list[str]:
    """Names in the order given, each once."""
    names = [n.strip() for text in given or ["default"] for n in text.split(",")]
    return list(dict.fromkeys(n for n in names if n)) or ["default"]


def read_report(path: Path) -> Report:
    """A report that an earlier run wrote. Raises UsageError when it isn't one."""
    try:
        report: Report = json.loads(path.read_text("utf-8"))
        for point in report["points"]:
            point.setdefault("recipe", report["recipe"])
            point["metrics"]["new_train"], point["n_edits"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "give a file that `palimpsest bench --json` wrote"
        raise UsageError("read report", str(path), f"{error!r}", hint) from error
    return report


def measure(
    source: Path, cases: Any, recipes: Sequence[str], head: Report, publish: Callable[[Report], None]
) -> Report:
    """The whole report; `publish` gets it after every case, so that a killed run loses one at most."""
    from policies.editing import bank, jobs
    from policies.editing import bench as harness
    from policies.editing.baselines.method import World
    from policies.editing.baselines.registry import method_named
    from policies.editing.cases import pretended_live
    from policies.editing.model import load

    def as_json(found: harness.Report, *, complete: bool) -> Report:
        return {
            "model": source.name,
            **head,
            "complete": complete,
            "left_out": left_out,
            "points": found.points,
            "first_again": found.first_again,
            "edits": found.edits,
        }

    live = pretended_live(head["live"])
    left_out: Report = {}
    found = harness.Report(lambda r: publish(as_json(r, complete=False)))
    with tempfile.TemporaryDirectory(prefix="palimpsest-bench-") as scratch, progress() as beat:
        base, cache = Path(scratch) / "base", Path(scratch) / "cache"
        init = {
            "kind": "init",
            "source": str(source),
            "base": str(base),
            "cache": str(cache),
            "shared": str(fetch.cache_home() / "banks"),
            "dtype": "float32",
            "device": "cpu",
        }
        jobs.run(init, beat)
        world = World(load(base), base, bank.read(cache), beat)
        beat("ask the base")
        cases, left = harness.firm(world, cases, least=0 if head["unknown"] else harness.FIRM)
        left_out |= left
        if not cases:
            hint = "--unknown edits them all the same"
            raise UsageError("bench", head["cases"], f"{source.name} gives none of the old answers", hint)
        for name in recipes:
            if head["mode"] == "sequential":
                harness.run_sequential(world, cases, name, method_named(name), found)
            else:
                harness.run_single(world, cases, name, method_named(name), found, live)
    report = as_json(found, complete=True)
    publish(report)
    return report


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A bar of cases on a terminal; a line for each case elsewhere."""

    def line(stage: str) -> None:
        if stage.startswith("case "):
            print(stage, file=sys.stderr, flush=True)

    if not sys.stderr.isatty():
        yield line
        return
    with console.progress("bench") as on_stage:
        counted = ""

        def bar(stage: str) -> None:
            nonlocal counted
            if stage.startswith("case "):
                counted = stage.split()[1]
            on_stage(f"{stage}: {counted}" if counted else stage)

        yield bar
