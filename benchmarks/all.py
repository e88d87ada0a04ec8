"""Run every benchmark, print one table of all ratios, and write them into one JSON file: `make bench`.

Each benchmark runs in a process of its own, so that none disturbs the threads or the memory of another. One that
lacks a package or a file is listed as skipped with its reason; one that breaks is listed too, and the exit status
is 1. The JSON has the form of one benchmark's (see ratios.py), with the single measurements under its name.

    python benchmarks/all.py [--quick] [--run RUN]... [--only NAME]... [--json FILE]
"""

import argparse
import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path

from ratios import Results, Skipped, argument_parser
from whatstuck.errors import WhatStuckError

BENCHMARKS = (
    "extraction",
    "certainty",
    "coalitions",
    "transforms",
    "many_players",
    "probe_cost",
    "generating",
    "variants",
    "trajectories",
)
_USER_ERRORS = ("WhatStuckError", "MissingExtraError")


class BrokenError(Exception):
    """A benchmark failed for another reason than a missing package or file."""


def measure(script: Path, options: argparse.Namespace) -> Results:
    """Run one benchmark and read what it found.

    Args:
        script: Takes `--json FILE`, and of `--quick` and `--run RUN` what its help names.
        options: Ours.

    Raises:
        WhatStuckError: If the script is not there or says that it lacks something; the message is the reason.
        BrokenError: If it failed otherwise.
    """
    if not script.is_file():
        raise WhatStuckError(f"there is no {script.name}")
    with tempfile.TemporaryDirectory() as folder:
        manual = _run(script, "--help", output=Path(folder) / "help.txt")
        passed = ["--quick"] if options.quick and "--quick" in manual else []
        if "--run" in manual:
            passed += [word for run in options.run for word in ("--run", run)]
        file = Path(folder) / "results.json"
        _run(script, "--json", str(file), *passed, output=Path(folder) / "table.md")
        try:
            return Results.read(file)
        except WhatStuckError as error:
            raise BrokenError(f"{script.name} wrote something else than ratios.py describes: {error}") from error


def _run(script: Path, *arguments: str, output: Path) -> str:
    """Run a script, pass its progress on, and return what it printed; the last line of an error is its reason."""
    last: deque[str] = deque(maxlen=1)
    command = [sys.executable, str(script), *arguments]
    # its output goes to a file: with two pipes, the one that nobody reads would fill and stop it
    with (
        output.open("w", encoding="utf-8") as printed,
        subprocess.Popen(command, stdout=printed, stderr=subprocess.PIPE, text=True) as process,  # noqa: S603 - ours
    ):
        for line in process.stderr or ():
            sys.stderr.write(line)
            last.extend([line.strip()] if line.strip() else [])
    if process.returncode:
        reason = last[0] if last else "it said nothing"
        kind, _, message = reason.partition(": ")
        if kind.rpartition(".")[2] in _USER_ERRORS:
            raise WhatStuckError(message)
        raise BrokenError(f"{script.name} failed with status {process.returncode}: {reason}")
    return output.read_text(encoding="utf-8")


def join(scripts: list[Path], options: argparse.Namespace) -> tuple[Results, bool]:
    """The results of all scripts, and whether one broke."""
    everything, broken = Results("all"), False
    for script in scripts:
        print(f"== {script.stem}", file=sys.stderr, flush=True)
        try:
            found = measure(script, options)
        except (WhatStuckError, BrokenError) as error:
            broken = broken or isinstance(error, BrokenError)
            everything.skipped.append(Skipped(script.stem, str(error)))
            continue
        everything.rows += found.rows
        everything.skipped += found.skipped
        everything.details[script.stem] = {"machine": found.machine, **found.details}
    return everything, broken


def main(argv: list[str] | None = None) -> int:
    """Measure all, print, write; 1 if one broke."""
    parser = argument_parser(__doc__)
    parser.add_argument("--run", action="append", default=[], help="a run folder with value tables; may be repeated")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="leave the others out; may be repeated")
    options = parser.parse_args(argv)
    here = Path(__file__).resolve().parent
    everything, broken = join([here / f"{name}.py" for name in options.only or BENCHMARKS], options)
    everything.finish(options.json)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
