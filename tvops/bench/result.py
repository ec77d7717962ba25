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
from typing import Any, Final, Literal

import msgspec

import tvops
from tvops.engine.telemetry.histogram import Histogram
from tvops.errors import UsageError
from tvops.settings import Settings
from tvops.tuning.fingerprint import Fingerprint
from tvops.whole_files import check_place, write_whole

SCHEMA: Final = 1
MAX_FILE_BYTES: Final = 1 << 26

Verdict = Literal["passed", "missed", "void", "partial", "no targets"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """An operation second by second: columns of one length, by the second that a request was meant for."""

    sent: tuple[int, ...]
    answered: tuple[int, ...]
    errors: tuple[int, ...]  # timeouts included
    p50: tuple[int, ...]  # response, ns; 0: nothing in that second
    p99: tuple[int, ...]
    maximum: tuple[int, ...]


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request (or of message received) over the measured time."""

    door: str  # rest_orders, websocket_orders, sessions, redis
    name: str  # new, amend, cancel, ioc; ticks, slow_ticks; ping, xadd, get
    sent: int  # requests sent, or messages received
    answered: int  # with success, in time
    errors: int  # timeouts included
    timeouts: int
    outcomes: dict[str, int]  # "201", "429", "timeout", "lost connection", … -> count
    rate: float  # answered per second of the measured time
    planned_rate: float = 0.0  # as the schedule has it; 0: there is none
    response: Histogram
    service: Histogram
    lateness: Histogram
    series: Series
    figures: dict[str, float] = {}  # the door's own: gaps, conflated, closed, records_per_s, …

    @property
    def key(self) -> str:
        """``door.name``: what stands for the operation in targets and comparisons."""
        return f"{self.door}.{self.name}"


class Generator(msgspec.Struct, frozen=True, kw_only=True):
    """One process that made load."""

    door: str
    pid: int
    core: int | None  # that it had for itself; None: it shared the cores with the rest
    cpu_percent: float  # of one core, over the run
    detail: str = ""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One target and what was seen."""

    about: str  # rest_orders, rest_orders.new, stack
    figure: str  # response_p99_ms, errors_percent, …
    limit: float
    seen: float | None  # None: not enough samples, or nothing measured
    met: bool
    detail: str = ""


class MemorySample(msgspec.Struct, frozen=True, kw_only=True):
    """The memory of one process of the stack at one moment."""

    second: float  # of the measured time
    process: str
    bytes: int  # PSS where it is known, else RSS


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One rate that a search for the knee tried."""

    rate: float  # planned, per second
    achieved: float
    kept: bool  # every target was met
    void: str
    response_p50: int | None  # ns; None: too few samples
    response_p99: int | None
    service_p50: int | None
    errors: int
    samples: int
    busy: float = 0.0  # of the busiest process of the stack, percent of a core; 0: not known


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    schema: int = SCHEMA
    version: str = tvops.__version__
    name: str  # of the scenario, or orders, ticks
    started: int  # when the load began, warm-up included, ns since 1970
    seconds: float  # measured, without the warm-up
    warm_up: float
    seed: int
    loop: Literal["open", "closed"] = "open"
    targets_of: dict[str, str]  # gateway, market, redis -> address, without secrets
    spawned: bool  # the stack was started by bench itself
    scenario: dict[str, Any]  # as it was run
    fingerprint: Fingerprint | None = None
    operations: tuple[Operation, ...]
    generators: tuple[Generator, ...] = ()
    void: str = ""  # why the figures must not be used; empty: they may
    partial: str = ""  # why the run is not whole (interrupted, …)
    checks: tuple[Check, ...] = ()
    steps: tuple[Step, ...] = ()  # of a search for the knee
    knee: float | None = None  # highest rate that kept the targets
    memory: tuple[MemorySample, ...] = ()
    before: dict[str, float] = {}  # the stack's own figures: "engine.stage.gateway_to_reply.p99_ns", …
    after: dict[str, float] = {}
    stolen_percent: float = 0.0  # of the measured time of all cores, by the hypervisor
    notes: tuple[str, ...] = ()

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


def decode_result(content: bytes, source: str) -> Result:
    """Read a result from JSON; raise UsageError naming ``source``."""
    try:
        schema = msgspec.json.decode(content, type=dict[str, Any]).get("schema")
        if schema != SCHEMA:
            raise UsageError(
                f"{source}: has schema {schema!r:.40}, this tvops reads {SCHEMA}; run the bench again"
            )
        result = msgspec.json.decode(content, type=Result)
        for operation in result.operations:
            for histogram in (operation.response, operation.service, operation.lateness):
                histogram.unpack()
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{source}: is no result of tvops bench: {error}") from None
    return result
