"""One small format for what a benchmark found, so that `make bench` can put all of them into one table.

A benchmark measures us and a peer in one process and says how they compare as `Ratio` rows. A ratio is always
turned so that larger is better for us: seconds of the peer divided by ours, our R² divided by the peer's. Seconds of
a shared machine mean little, their ratios much more.

Every benchmark is a script beside this file with the options `--json FILE` and `--quick`:

    from ratios import Ratio, Results, Skipped

    options = argument_parser(__doc__).parse_args()
    results = Results("coalitions", rows=[Ratio.of_times("values of a row, n=10", ours=1.2, peer=6.1, goal=4)])
    results.finish(options.json)

What could not be measured, for want of a package or a file, is a `Skipped` with its reason; nothing is left out
silently. `all.py` runs the scripts and joins their files.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from whatstuck.errors import WhatStuckError
from whatstuck.files import whole
from whatstuck.runs import versions as own_versions

PEERS = ("scipy", "shapiq", "lightgbm", "safetensors")  # beside what a run folder records
_BEGAN = time.perf_counter()


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has; add the others to it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results here as well")
    parser.add_argument("--quick", action="store_true", help="a smaller form, for a first look")
    return parser


def say(text: str) -> None:
    """Progress with the seconds so far, on stderr: stdout belongs to the table."""
    print(f"[{time.perf_counter() - _BEGAN:5.0f} s] {text}", file=sys.stderr, flush=True)


def installed_versions() -> dict[str, str]:
    """Versions of us, of Python and of the peers that are installed."""
    found = own_versions()
    for package in PEERS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def this_machine() -> dict[str, Any]:
    """What the times depend on: processor, cores, threads that torch may use, accelerator."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@dataclass(frozen=True, slots=True)
class Ratio:
    """One comparison.

    Attributes:
        name: What was done, by whom and at what size.
        ours: Our number, in `unit`; NaN where only the ratio was measured.
        peer: The peer's number, in the same unit; NaN likewise.
        ratio: How many times better ours is.
        unit: Of `ours` and `peer`, such as `"s"`.
        goal: The ratio to reach, or None where we only report.
        note: How it was measured, where the name does not say it; its spread.
    """

    name: str
    ours: float
    peer: float
    ratio: float
    unit: str = ""
    goal: float | None = None
    note: str = ""

    @classmethod
    def of_times(cls, name: str, *, ours: float, peer: float, goal: float | None = None, note: str = "") -> Self:
        """Compare two times in seconds, where less is better."""
        return cls(name, ours, peer, peer / ours if ours else math.inf, "s", goal, note)

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        return None if self.goal is None else self.ratio >= self.goal


@dataclass(frozen=True, slots=True)
class Skipped:
    """A comparison that could not be made, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Results:
    """What one benchmark found.

    Attributes:
        benchmark: Name of the script, without its suffix.
        rows: The comparisons.
        skipped: What could not be compared.
        details: Everything else worth keeping, such as every single measurement; any JSON.
        versions: Of us, of Python and of every package that is installed and may matter.
        machine: Processor, threads and accelerator.
    """

    benchmark: str
    rows: list[Ratio] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=installed_versions)
    machine: dict[str, Any] = field(default_factory=this_machine)

    def table(self) -> str:
        """The rows as a Markdown table, with the skipped comparisons and the versions below it."""
        lines = ["| what | ours | peer | ratio | goal | |", "|---|---|---|---|---|---|"]
        lines += [_line(row) for row in self.rows]
        lines += [f"| {item.name} | – | – | – | – | skipped: {item.reason} |" for item in self.skipped]
        packages = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        hardware = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        return "\n".join([*lines, "", packages, hardware])

    def extend(self, other: "Results") -> None:
        """Add what another part of the same benchmark found."""
        self.rows += other.rows
        self.skipped += other.skipped
        self.details |= other.details

    def finish(self, path: str | Path | None) -> None:
        """Print the table, and write the JSON where a path is given."""
        print(self.table())
        if path is not None:
            self.write(path)

    def write(self, path: str | Path) -> None:
        """Write everything as JSON, whole or not at all; a number that is not finite becomes null."""
        with whole(Path(path)) as temporary:
            text = json.dumps(_finite(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read what `write` wrote; null in a number is NaN.

        Raises:
            WhatStuckError: If the file is missing or is something else.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            numbers = ("ours", "peer", "ratio")
            rows = content.pop("rows")
            for row in rows:
                row.update({name: math.nan for name in numbers if row[name] is None})
            skipped = [Skipped(**item) for item in content.pop("skipped")]
            return cls(rows=[Ratio(**row) for row in rows], skipped=skipped, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise WhatStuckError(f"{path} is no result of a benchmark ({error}): run the benchmark again") from error


def _line(row: Ratio) -> str:
    goal = "–" if row.goal is None else f"{row.goal:g}× {'met' if row.met else 'MISSED'}"
    cells = [row.name, number(row.ours, row.unit), number(row.peer, row.unit), f"{number(row.ratio)}×", goal]
    return f"| {' | '.join([*cells, row.note])} |"


def number(value: float, unit: str = "") -> str:
    """Three digits; whole numbers from 100 on.

    >>> number(1234.5, "s"), number(0.01234), number(math.nan)
    ('1,234 s', '0.0123', '–')
    """
    if math.isnan(value):
        return "–"
    text = f"{value:,.0f}" if 100 <= abs(value) < math.inf else f"{value:.3g}"
    return f"{text} {unit}".strip()


def _finite(value: Any) -> Any:
    """The same JSON with None for numbers that JSON has not; infinite ratios do not survive, and need not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
