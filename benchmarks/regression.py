"""Runs a few short scenarios, keeps a history, and says what changed beyond the noise; made for every night.

    python benchmarks/regression.py --history history.jsonl --html history.html --check

The history is a file of JSON lines, one per run. A figure is compared with the same figure of the last runs on the
same host: it has changed where it is further from their median than three times their spread (median absolute
deviation, as a standard deviation) and than five percent. Fewer than five such runs say nothing. With --check the
exit code is 3 where a figure got worse, 4 where a run was void.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from tvops.bench import page
from tvops.bench.charts import WIDE, Curve, load_chart
from tvops.bench.figures import UNITS, figure_of, lower_is_better, text_of
from tvops.bench.result import Result
from tvops.errors import TvopsError, UsageError
from tvops.whole_files import write_whole

SCENARIOS = ("steady", "mix")
FIGURES = ("p50", "p99", "service_p50", "error_rate", "rate")
LEAST_RUNS = 5
SPREADS = 3.0
LEAST_SHARE = 0.05
MAX_HISTORY_BYTES = 1 << 28


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One run in the history."""

    started: int  # ns since 1970
    version: str
    host: str  # digest of the fingerprint
    scenario: str
    void: str = ""
    figures: dict[str, float]  # "rest_orders.new p99" -> ns, or what the figure's unit is


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that is not what it was."""

    scenario: str
    figure: str
    usual: float
    now: float
    worse: bool

    def __str__(self) -> str:
        unit = UNITS[self.figure.rpartition(" ")[2]]
        percent = f" ({100 * (self.now - self.usual) / self.usual:+.1f} %)" if self.usual else ""
        word = "worse" if self.worse else "better"
        values = f"{text_of(self.usual, unit)} → {text_of(self.now, unit)}"
        return f"{word}: {self.scenario} {self.figure}: {values}{percent}"


def entry_of(result: Result) -> Entry:
    """Take what the history keeps of a run."""
    figures = {}
    for operation in result.operations:
        for figure in FIGURES:
            value = figure_of(operation, figure)
            if value is not None:
                figures[f"{operation.key} {figure}"] = value
    return Entry(
        started=result.started, version=result.version, scenario=result.name, void=result.void or result.partial,
        host=result.fingerprint.digest if result.fingerprint else "", figures=figures,
    )  # fmt: skip


def read_history(path: Path) -> list[Entry]:
    """Read the history; a last line that was cut off is left out. Raise UsageError where another is broken."""
    if not path.exists():
        return []
    if path.stat().st_size > MAX_HISTORY_BYTES:
        raise UsageError(f"{path}: is larger than {MAX_HISTORY_BYTES >> 20} MB; begin a new history")
    entries = []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entries.append(msgspec.json.decode(line, type=Entry))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == len(lines):
                break
            raise UsageError(f"{path}:{number}: is no run of the history: {error}") from None
    return entries


def append(path: Path, entries: Sequence[Entry], known: Sequence[Entry]) -> None:
    """Write the history with new entries, whole or not at all."""
    write_whole(path, b"".join(msgspec.json.encode(entry) + b"\n" for entry in (*known, *entries)))


def changes(known: Sequence[Entry], entry: Entry, last: int) -> list[Change]:
    """Give the figures of a run that are beyond the noise of the last runs like it."""
    alike = [e for e in known if (e.host, e.scenario, e.void) == (entry.host, entry.scenario, "")][-last:]
    found = []
    for figure, now in entry.figures.items():
        before = np.array([e.figures[figure] for e in alike if figure in e.figures])
        if len(before) < LEAST_RUNS:
            continue
        usual = float(np.median(before))
        spread = 1.4826 * float(np.median(np.abs(before - usual)))
        if abs(now - usual) > max(SPREADS * spread, LEAST_SHARE * abs(usual)):
            more = now > usual
            worse = more == lower_is_better(figure.rpartition(" ")[2])
            found.append(Change(scenario=entry.scenario, figure=figure, usual=usual, now=now, worse=worse))
    return found


def history_page(entries: Sequence[Entry], found: Sequence[Change]) -> str:
    """Plot every figure over the runs, a line for each host."""
    sound = [entry for entry in entries if not entry.void]
    hosts = list(dict.fromkeys(entry.host for entry in sound))
    cards = []
    for scenario in dict.fromkeys(entry.scenario for entry in sound):
        runs = [entry for entry in sound if entry.scenario == scenario]
        for figure in dict.fromkeys(name for entry in runs for name in entry.figures):
            unit = UNITS[figure.rpartition(" ")[2]]
            size = 1e6 if unit == "ns" else 1.0
            curves = [
                Curve(
                    name=host or "unknown host", colour=colour,
                    points=tuple(
                        (float(n), entry.figures[figure] / size)
                        for n, entry in enumerate(runs) if entry.host == host and figure in entry.figures
                    ),
                )
                for colour, host in enumerate(hosts, 1)
            ]  # fmt: skip
            drawing = load_chart(curves, "run", "ms" if unit == "ns" else unit, width=WIDE)
            cards.append(page.card(f"{scenario}: {figure}", drawing, curves, wide=True))
    verdict = "worse" if any(change.worse for change in found) else "ok"
    last = page.moment(entries[-1].started) if entries else "no runs yet"
    parts = [page.notes([str(change) for change in found]), page.charts(cards)]
    version = entries[-1].version if entries else ""
    return page.document("tvops bench: history", verdict, f"{len(entries)} runs · last: {last}", parts, version)


def measure(scenarios: Sequence[str], seconds: float) -> list[Entry]:
    """Run the scenarios, each on a stack of its own."""
    from tvops.bench.conduct import Order, conduct
    from tvops.bench.scenario import load_scenario

    entries = []
    for name in scenarios:
        print(f"{name}: {seconds:g} s", file=sys.stderr)
        scenario = msgspec.structs.replace(load_scenario(name), seconds=seconds, warm_up=1.0)
        entries.append(entry_of(conduct(Order(scenario=scenario))))
    return entries


def main(arguments: argparse.Namespace) -> int:
    known = read_history(arguments.history)
    entries = measure(arguments.scenarios, arguments.seconds)
    found = [change for entry in entries if not entry.void for change in changes(known, entry, arguments.last)]
    append(arguments.history, entries, known)
    for entry in entries:
        if entry.void:
            print(f"void: {entry.scenario}: {entry.void}")
    for change in found:
        print(change)
    if not found:
        print("nothing changed beyond the noise, as far as there are runs to compare with")
    if arguments.html:
        page.write_page(arguments.html, history_page([*known, *entries], found))
    if not arguments.check:
        return 0
    return 3 if any(change.worse for change in found) else 4 if any(entry.void for entry in entries) else 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), help="scenarios that ship, or files")
    parser.add_argument("--history", type=Path, default=Path("bench-history.jsonl"))
    parser.add_argument("--html", type=Path, help="plot the history into this file")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each run")
    parser.add_argument("--last", type=int, default=20, help="compare with so many runs before")
    parser.add_argument("--check", action="store_true", help="exit with 3 where something got worse")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        sys.exit(main(parse(sys.argv[1:])))
    except TvopsError as error:
        sys.exit(f"regression: {error}")
