"""What a run of `tvops bench` found, as it is saved and compared: JSON with a schema number.

Latencies are in ns and travel as histograms (`tvops.engine.telemetry.histogram`), which add up. Every operation
has three: *response* counts from the time at which a request was meant to be sent, *service* from the time at
which it was, *lateness* is what the generator itself was late by. Errors and timeouts are among them, at the value
of the timeout. Of market data, response counts from the time in the tick, service from the time in the frame's
header, and lateness is how late the event loop of the clients was.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

import tvops
from tvops.engine.telemetry.bounds import MOST_ROWS, Count, Number, Rows, Whole
from tvops.engine.telemetry.histogram import Histogram
from tvops.errors import UsageError
from tvops.settings import Settings
from tvops.terminal import clean
from tvops.tuning.fingerprint import Fingerprint
from tvops.whole_files import check_place, write_whole
from tvops.yaml_lines import MAX_DEPTH

SCHEMA: Final = 1
MAX_FILE_BYTES: Final = 1 << 27  # a day of 9 operations takes 57 MB

Verdict = Literal["passed", "missed", "void", "partial", "no targets"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


MOST_SECONDS: Final = 86_400
MOST_OPERATIONS: Final = 64
MOST_SCENARIO_BYTES: Final = 1 << 21

Line = Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z")]
"""Text without control characters: it stands in lines of a terminal."""
Amount = Annotated[float, Meta(ge=0, le=2.0**63)]
Column = Annotated[tuple[Count, ...], Meta(max_length=MOST_SECONDS + 1)]


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """An operation second by second: columns of one length, by the second that a request was meant for."""

    sent: Column
    answered: Column
    errors: Column  # timeouts included
    p50: Column  # response, ns; 0: nothing in that second
    p99: Column
    maximum: Column


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request (or of message received) over the measured time."""

    door: Line  # rest_orders, websocket_orders, sessions, redis
    name: Line  # new, amend, cancel, ioc; ticks, slow_ticks; ping, xadd, get
    sent: Count  # requests sent, or messages received
    answered: Count  # with success, in time
    errors: Count  # timeouts included
    timeouts: Count
    outcomes: Annotated[dict[Line, Count], Rows]  # "201", "429", "timeout", "lost connection", … -> count
    rate: Amount  # answered per second of the measured time
    planned_rate: Amount = 0.0  # as the schedule has it; 0: there is none
    response: Histogram
    service: Histogram
    lateness: Histogram
    series: Series
    figures: Annotated[dict[Line, Number], Rows] = {}  # the door's own: gaps, conflated, closed, records_per_s, …

    @property
    def key(self) -> str:
        """``door.name``: what stands for the operation in targets and comparisons."""
        return f"{self.door}.{self.name}"


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """One process that made load."""

    door: Line
    pid: Count
    core: Count | None  # that it had for itself; None: it shared the cores with the rest
    cpu_percent: Amount  # of one core, over the run
    detail: Line = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One target and what was seen."""

    about: Line  # rest_orders, rest_orders.new, stack
    figure: Line  # response_p99_ms, errors_percent, …
    limit: Number
    seen: Number | None  # None: not enough samples, or nothing measured
    met: bool
    detail: Line = ""


class MemorySample(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of one process of the stack at one moment."""

    second: Amount  # of the measured time
    process: Line
    bytes: Whole  # PSS where it is known, else RSS


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One rate that a search for the knee tried."""

    rate: Amount  # planned, per second
    achieved: Amount
    kept: bool  # every target was met
    void: Line
    response_p50: Count | None  # ns; None: too few samples
    response_p99: Count | None
    service_p50: Count | None
    errors: Count
    samples: Count
    busy: Number = 0.0  # of the busiest process of the stack, percent of a core; 0: not known


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. The types hold what a result may say, whoever wrote it; `decode_result` sees to the rest."""

    schema: int = SCHEMA
    version: Line = tvops.__version__
    name: Line  # of the scenario, or orders, ticks
    started: Count  # when the load began, warm-up included, ns since 1970
    seconds: Annotated[float, Meta(ge=0, le=MOST_SECONDS)]  # measured, without the warm-up
    warm_up: Annotated[float, Meta(ge=0, le=MOST_SECONDS)]
    seed: Count
    loop: Literal["open", "closed"] = "open"
    targets_of: Annotated[dict[Line, Line], Rows]  # gateway, market, redis -> address, without secrets
    spawned: bool  # the stack was started by bench itself
    scenario: dict[Line, Any]  # as it was run
    fingerprint: Fingerprint | None = None
    operations: Annotated[tuple[Operation, ...], Meta(max_length=MOST_OPERATIONS)]
    generators: Annotated[tuple[Generator, ...], Rows] = ()
    void: Line = ""  # why the figures must not be used; empty: they may
    partial: Line = ""  # why the run is not whole (interrupted, …)
    checks: Annotated[tuple[Check, ...], Rows] = ()
    steps: Annotated[tuple[Step, ...], Rows] = ()  # of a search for the knee
    knee: Amount | None = None  # highest rate that kept the targets
    memory: tuple[MemorySample, ...] = ()
    before: dict[Line, Number] = {}  # the stack's own figures: "engine.stage.gateway_to_reply.p99_ns", …
    after: dict[Line, Number] = {}
    stolen_percent: Amount = 0.0  # of the measured time of all cores, by the hypervisor
    notes: Annotated[tuple[Line, ...], Rows] = ()

    @property
    def verdict(self) -> Verdict:
        """What it comes to."""
        if self.void:
            return "void"
        if self.partial:
            return "partial"
        if not self.checks:
            return "no targets"
        return "passed" if all(check.met for check in self.checks) else "missed"

    def operation(self, key: str) -> Operation | None:
        """Give an operation by its ``door.name``."""
        return next((operation for operation in self.operations if operation.key == key), None)


def results_folder() -> Path:
    """Give the folder of saved results: `bench` in the data directory ($TVOPS_DATA_DIR, else the user's own)."""
    return Settings(data_dir=os.environ.get("TVOPS_DATA_DIR", "")).data_path / "bench"


def saved_path(name_or_path: str) -> Path:
    """Give the file that a name (``before``) or a path (``./before.json``) stands for; raise UsageError."""
    if "/" in name_or_path or name_or_path.endswith(".json"):
        return Path(name_or_path)
    if not _NAME.fullmatch(name_or_path):
        raise UsageError(
            f"{name_or_path[:80]!r} is no name of a result: letters, digits, '.', '_', '-'; or a path"
        )
    return results_folder() / f"{name_or_path}.json"


def place_to_save(name_or_path: str) -> Path:
    """Give the file that a result can be saved in; raise UsageError where it cannot.

    The folder of results is made where it is not there, any other is not.
    """
    path = saved_path(name_or_path)
    if path.parent == results_folder():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None
    check_place(path)
    return path


def save_result(result: Result, name_or_path: str) -> Path:
    """Write a result as JSON, whole or not at all; give the file. Raise UsageError where it cannot be written."""
    path = place_to_save(name_or_path)
    write_whole(path, msgspec.json.encode(result))
    return path


def load_result(name_or_path: str) -> Result:
    """Read a saved result.

    Raises:
        UsageError: there is none, or it is of another schema or no result; names the file.
    """
    path = saved_path(name_or_path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such result; tvops bench results lists what is saved") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MB, which no result is")
    return decode_result(content, str(path))


class _Head(msgspec.Struct):
    schema: msgspec.Raw = msgspec.Raw(b"none")
    scenario: msgspec.Raw = msgspec.Raw(b"")


def decode_result(content: bytes, source: str) -> Result:
    """Read a result from JSON, whoever wrote it, so that all that is made of it can rely on its values.

    Raises:
        UsageError: it is none, or none of this schema; names ``source``.
    """
    try:
        head = msgspec.json.decode(content, type=_Head)
        schema = clean(bytes(head.schema).decode())
        if schema != str(SCHEMA):
            raise UsageError(f"{source}: has schema {schema:.40}, this tvops reads {SCHEMA}; run the bench again")
        if len(head.scenario) > MOST_SCENARIO_BYTES:
            raise ValueError(f"scenario: is larger than {MOST_SCENARIO_BYTES >> 20} MB")
        result = msgspec.json.decode(content, type=Result)
        _check(result)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{source}: is no result of tvops bench: {clean(str(error))[:300]}") from None
    return result


def _check(result: Result) -> None:
    """Check what the types do not hold; raise ValueError."""
    for operation in result.operations:
        for histogram in (operation.response, operation.service, operation.lateness):
            histogram.check()
        if len({len(column) for column in msgspec.structs.astuple(operation.series)}) > 1:
            raise ValueError(f"{operation.key}: the columns of its series are not of one length")
    if len({sample.process for sample in result.memory}) > MOST_ROWS:
        raise ValueError(f"memory: there are more than {MOST_ROWS} processes")
    _check_plain(result.scenario)


def _check_plain(value: object, depth: int = 0) -> None:
    """Check that a scenario is not nested without end, and that its numbers can be written; raise ValueError."""
    if depth > MAX_DEPTH:
        raise ValueError(f"scenario: is nested more than {MAX_DEPTH} deep")
    if isinstance(value, int | float) and not -(2.0**63) <= value <= 2.0**63:
        raise ValueError("scenario: has a number that is out of range")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        _check_plain(one, depth + 1)
