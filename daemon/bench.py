"""`palimpsest bench`: the editor measured on a file of cases, as a table and as JSON.

Knows arguments, where the model comes from and how a report is shown. Doesn't know how anything is
measured (`policies.editing.bench`). Runs in this process: torch is imported when it begins.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from daemon import fetch
from daemon.initialise import source_directory
from store.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=Path, required=True, metavar="FILE", help="cases, JSON Lines")
    parser.add_argument("--n", type=int, default=20, metavar="N", help="how many, each alone (default 20)")
    parser.add_argument("--sequential", type=int, metavar="N", help="instead: N of them, all in one model")
    parser.add_argument("--json", dest="out", type=Path, metavar="OUT", help="write the report there")
    parser.add_argument("--recipe", default="default", help="recipe of the editor")
    parser.add_argument("--model", default="default", metavar="DIR", help="Hugging Face directory")


def main(args: argparse.Namespace) -> int:
    """Edit each case from the base, print the table and write the report."""
    if not args.cases.is_file():
        raise UsageError(
            "bench", str(args.cases), "no such file", "give a file of cases, one JSON object a line"
        )
    from policies.editing.bench import read_cases

    cases = read_cases(args.cases, args.sequential or args.n)
    if not cases:
        raise UsageError("bench", str(args.cases), "it holds no case")
    report = measure(source_directory(args.model), cases, args.recipe, sequential=bool(args.sequential))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    print(table(report))
    return 0


def measure(source: Path, cases: Any, recipe: str, *, sequential: bool) -> dict[str, Any]:
    from policies.editing import bank, jobs
    from policies.editing.bench import run_sequential, run_single
    from policies.editing.model import load

    with tempfile.TemporaryDirectory(prefix="palimpsest-bench-") as scratch:
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
        jobs.run(init, progress)
        run = run_sequential if sequential else run_single
        points = run(load(base), base, bank.read(cache), cases, recipe, progress)
    progress("done")
    print(file=sys.stderr)
    mode = "sequential" if sequential else "single"
    return {"model": source.name, "recipe": recipe, "mode": mode, "points": points}


def progress(stage: str) -> None:
    """One line on a terminal, rewritten; a line for each case elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{stage[:78]}", end="", file=sys.stderr, flush=True)
    elif stage.startswith("case "):
        print(stage, file=sys.stderr, flush=True)


def table(report: dict[str, Any]) -> str:
    lines = [f"{report['model']}, recipe {report['recipe']}, {report['mode']}"]
    for point in report["points"]:
        lines.append(f"{point['cases']} cases, {point['n_edits']} edit(s) in one model")
        for name, m in point["metrics"].items():
            value = "   -" if m["value"] is None else f"{100 * m['value']:5.1f}"
            lines.append(
                f"  {name:13} {value} %  [{100 * m['low']:5.1f}, {100 * m['high']:5.1f}]  n {m['n']}"
            )
        seconds, gate = point["seconds_per_edit"], point["gate_seconds"]["median"]
        line = f"  edit {seconds['median']:.1f} s median, {seconds['max']:.1f} s max"
        lines.append(line if gate is None else f"{line}; gates {gate:.1f} s median")
        size, rss = point["bytes_per_edit"] / 1e3, point["peak_rss_bytes"] / 2**20
        lines.append(f"  {size:.0f} kB an edit, peak memory {rss:.0f} MiB")
    return "\n".join(lines)
