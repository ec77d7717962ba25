"""`--hlog` and `--hgrm`: what bench and top write, read by an independent HdrHistogram library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from tests.bench_results import operation, result
from tests.full_disk import room_for
from tests.top_documents import BEGIN, GATEWAY, MARKET, SECOND, STACK, counts_of
from tvops import cli
from tvops.bench.figures import latency
from tvops.bench.result import Result, save_result
from tvops.engine.telemetry.document import Stage, Telemetry
from tvops.engine.telemetry.export import Interval
from tvops.engine.telemetry.histogram import HIGHEST, pack
from tvops.errors import UsageError
from tvops.latency_files import follow_hlog, place_for_hgrm
from tvops.telemetry_client import Reading
from tvops.top import exports
from tvops.top.addresses import Stack
from tvops.top.recording import Writer

PERCENTS = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
LINE = re.compile(r"Tag=([^,]+),([0-9.]+),([0-9.]+),[0-9.]+,(\S+)\n")


class Log:
    """A histogram log as the library reads it: the intervals by tag."""

    def __init__(self, path: Path) -> None:
        reader = HistogramLogReader(str(path), HdrHistogram(1, HIGHEST, 2))
        self.histograms: dict[str, list[HdrHistogram]] = {}
        while (histogram := reader.get_next_interval_histogram()) is not None:
            self.histograms.setdefault(histogram.get_tag() or "", []).append(histogram)
        reader.close()
        self.times: dict[str, list[tuple[float, float]]] = {}
        for tag, start, length, _ in LINE.findall(path.read_text()):
            self.times.setdefault(tag, []).append((float(start), float(length)))


def hgrm_values(path: Path) -> list[tuple[int, float]]:
    """Give how many samples are at most what value, in ms, of each line of a distribution."""
    lines = re.findall(r"^ *([0-9.]+) +[01]\.[0-9]+ +([0-9]+)", path.read_text(), re.MULTILINE)
    return [(int(count), float(value)) for value, count in lines]


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setenv("TVOPS_DATA_DIR", str(tmp_path / "data"))
    run = result(operation(1), operation(2, key="rest_orders.cancel", rate=200, middle=0.6e6))
    save_result(run, "before")
    return run


def test_a_saved_result_as_a_histogram_log(saved: Result, tmp_path: Path) -> None:
    path = tmp_path / "x.hlog"
    assert cli.run(["bench", "report", "before", "--hlog", str(path)]) == 0
    log = Log(path)
    assert set(log.histograms) == {
        f"rest_orders.{name}.{kind}" for name in ("new", "cancel") for kind in ("response", "service")
    }
    assert set(map(tuple, log.times.values())) == {((0.0, saved.seconds),)}
    for one in saved.operations:
        for kind, histogram in (("response", one.response), ("service", one.service)):
            (theirs,) = log.histograms[f"{one.key}.{kind}"]
            assert theirs.get_total_count() == one.sent
            for name, percent in PERCENTS.items():
                assert theirs.get_value_at_percentile(percent) == latency(histogram, name)


def test_a_saved_result_as_distributions_and_a_page(saved: Result, tmp_path: Path) -> None:
    folder, page = tmp_path / "hgrm", tmp_path / "x.html"
    assert cli.run(["bench", "report", "before", str(page), "--hgrm", str(folder)]) == 0
    assert page.is_file()
    assert len(list(folder.iterdir())) == 4
    (new,) = (one for one in saved.operations if one.name == "new")
    theirs = HdrHistogram(1, HIGHEST, 2)
    counts = new.response.unpack()
    for bucket in np.flatnonzero(counts):
        theirs.record_value(theirs.get_value_from_index(int(bucket)), int(counts[bucket]))
    values = hgrm_values(folder / "rest_orders.new.response.hgrm")
    assert len(values) > 20
    for count, value in values:
        assert value == pytest.approx(theirs.get_value_at_percentile(100 * count / new.sent) / 1e6, abs=0.001)


def test_what_cannot_be_written_is_told(saved: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for words in ((), ("--hgrm", str(tmp_path / "file")), ("--hlog", str(tmp_path / "none" / "x.hlog"))):
        assert cli.run(["bench", "report", "before", *words]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("name", ["/../../../outside", "../x", "a, b", "a b", "a\0b", "-x", "x" * 400, "\x1b[31m"])
def test_a_result_names_no_file_outside_of_the_folder_and_no_broken_tag(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = tmp_path / "strange.json", tmp_path / "hgrm"
    path.write_bytes(msgspec.json.encode(result(operation(1, key=f".{name}", seconds=1))))
    for words in (("--hgrm", str(folder)), ("--hlog", str(tmp_path / "x.hlog"))):
        assert cli.run(["bench", "report", str(path), *words]) == 2
        said = capsys.readouterr().err
        assert "is no name of a histogram" in said or "is no result of tvops bench" in said
        assert said.count("\n") == 1
        assert len(said) < 300
        assert said.strip().isprintable()
    assert {file.name for file in tmp_path.iterdir()} <= {"strange.json", "hgrm"}
    assert not list(folder.glob("*"))


def document(
    second: int, samples: list[int], *, process: str = "engine", pid: int = 11, name: str = "gateway_to_reply"
) -> Telemetry:
    """Give what a process tells that has recorded ``samples`` since its start."""
    stage = Stage("request received", pack(counts_of(samples), max(samples, default=0)))
    now = BEGIN + second * SECOND
    return Telemetry(
        process=process, version="1", pid=pid, started=BEGIN if pid == 11 else now - SECOND // 2, time=now,
        health={}, stats={}, stages={name: stage}, metrics=(), events=(),
    )  # fmt: skip


def samples_of(second: int) -> list[int]:
    return [int(value) for value in 1000 * 2 ** np.random.default_rng(second).exponential(3, 500)]


def readings() -> Iterator[Reading]:
    """Six seconds of an engine, which restarts in the last, and of market data, which is away for a while."""
    sofar: list[int] = []
    for second in range(6):
        sofar = [] if second == 5 else sofar
        sofar = sofar + samples_of(second)
        engine = document(second, sofar, pid=12 if second == 5 else 11)
        yield Reading(GATEWAY, engine, "", 0, True)
        yield Reading(GATEWAY, engine, "", 0, True)  # asked twice while it was the newest
        if second in (2, 3):
            yield Reading(MARKET, None, "connection refused", 0, False)
        else:
            market = document(second, samples_of(9) * (second + 1), process="market")
            yield Reading(MARKET, market, "", 0, True)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "recording"
    writer = Writer(path, (STACK,))
    for reading in readings():
        writer.add(reading, reading.telemetry.time if reading.telemetry else BEGIN)
    writer.close()
    return path


def test_a_recording_as_a_log_with_an_interval_a_second(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.hlog"
    assert cli.run(["top", "--replay", str(recording), "--hlog", str(path)]) == 0
    log = Log(path)
    engine, market = (log.histograms[f"{process}.gateway_to_reply"] for process in ("engine", "market"))
    assert [one.get_total_count() for one in engine] == [500] * 5
    assert [one.get_total_count() for one in market] == [500, 1500, 500]
    assert log.times["engine.gateway_to_reply"] == [(0, 1), (1, 1), (2, 1), (3, 1), (4.5, 0.5)]
    assert log.times["market.gateway_to_reply"] == [(0, 1), (1, 3), (4, 1)]
    for second, theirs in enumerate(engine, 1):
        exact = np.percentile(samples_of(second), list(PERCENTS.values()), method="inverted_cdf")
        for percent, value in zip(PERCENTS.values(), exact, strict=True):
            assert theirs.get_value_at_percentile(percent) == pytest.approx(value, rel=1 / 128)


def test_a_recording_as_distributions_of_the_whole_time(recording: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hgrm"
    assert cli.run(["top", "--replay", str(recording), "--hgrm", str(folder), "--seconds", "2"]) == 0
    assert {path.name for path in folder.iterdir()} == {
        "engine.gateway_to_reply.hgrm", "market.gateway_to_reply.hgrm",
    }  # fmt: skip
    assert "Total count    =         2500]" in (folder / "engine.gateway_to_reply.hgrm").read_text()


def test_several_stacks_have_their_names_in_the_tags(tmp_path: Path) -> None:
    path, log = tmp_path / "recording", tmp_path / "x.hlog"
    writer = Writer(path, (Stack("a:8000", (GATEWAY,)), Stack("b:8000", (MARKET,))))
    for reading in readings():
        writer.add(reading, BEGIN)
    writer.close()
    assert cli.run(["top", "--replay", str(path), "--hlog", str(log)]) == 0
    assert set(Log(log).histograms) == {"a:8000.engine.gateway_to_reply", "b:8000.market.gateway_to_reply"}


def test_ports_and_strange_names_of_stacks_make_tags_that_can_be_read(tmp_path: Path) -> None:
    path, log, folder = tmp_path / "recording", tmp_path / "x.hlog", tmp_path / "hgrm"
    writer = Writer(path, (Stack("a:8000,8001", (GATEWAY,)), Stack("/../ \n/b", (MARKET,))))
    for reading in readings():
        writer.add(reading, BEGIN)
    writer.close()
    names = {"a:8000+8001.engine.gateway_to_reply", "+..++++b.market.gateway_to_reply"}
    assert cli.run(["top", "--replay", str(path), "--hlog", str(log), "--hgrm", str(folder)]) == 0
    assert set(Log(log).histograms) == names
    assert {file.name for file in folder.iterdir()} == {f"{name}.hgrm" for name in names}


STRANGE = ("{outside}/ABS", "../outside/x", "a, b", "a\0b", "x" * 400, "\x1b]0;x\x07")


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("field", ["process", "name"])
def test_a_recording_does_not_choose_where_files_are_written(
    field: str, strange: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside, folder, log = tmp_path / "outside", tmp_path / "hgrm", tmp_path / "x.hlog"
    outside.mkdir()
    path, writer = tmp_path / "recording", Writer(tmp_path / "recording", (STACK,))
    for second in range(3):
        fields = {field: strange.format(outside=outside)}
        for url, strangers in ((GATEWAY, fields), (MARKET, {"process": "market"})):
            made = document(second, samples_of(1) * (second + 1), **strangers)  # type: ignore[arg-type]
            writer.add(Reading(url, made, "", 0, True), made.time)
    writer.close()
    assert cli.run(["top", "--replay", str(path), "--hgrm", str(folder), "--hlog", str(log)]) == 0
    assert not list(outside.iterdir())
    assert [file.name for file in folder.iterdir()] == ["market.gateway_to_reply.hgrm"]
    assert set(Log(log).histograms) == {"market.gateway_to_reply"}
    assert not capsys.readouterr().err


def test_a_log_is_not_written_over_and_forms_exclude_each_other(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "x.hlog"
    there.write_text("mine")
    assert cli.run(["top", "--replay", str(recording), "--hlog", str(there)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert there.read_text() == "mine"
    assert cli.run(["top", "--once", "--hlog", str(tmp_path / "y.hlog")]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_a_stack_that_is_away_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.hlog"
    words = ["--gateway", "http://127.0.0.1:1", "--seconds", "0.1", "--hlog", str(path)]
    assert cli.run(["top", *words]) == 1
    assert "nothing to write" in capsys.readouterr().err
    assert not path.exists()


def test_a_result_of_nothing_makes_no_histograms(tmp_path: Path) -> None:
    path, log = tmp_path / "empty.json", tmp_path / "x.hlog"
    path.write_bytes(msgspec.json.encode(result()))
    assert cli.run(["bench", "report", str(path), "--hlog", str(log)]) == 0
    assert Log(log).histograms == {}


@pytest.mark.parametrize("room", [0, 100, 600, 1500])
def test_a_full_disk_leaves_no_log_of_a_recording(
    room: int, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.hlog"
    with room_for(room):
        assert cli.run(["top", "--replay", str(recording), "--hlog", str(path)]) == 2
    assert capsys.readouterr().err == f"tvops: {path}: cannot be written: File too large\n"
    assert list(tmp_path.iterdir()) == [recording]


def test_a_recording_with_new_stages_without_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exports, "MOST_STAGES", 4)
    path, writer = tmp_path / "recording", Writer(tmp_path / "recording", (STACK,))
    for second in range(6):
        made = document(second, samples_of(1), name=f"stage{second}")
        writer.add(Reading(GATEWAY, made, "", 0, True), made.time)
    writer.close()
    assert cli.run(["top", "--replay", str(path), "--hlog", str(tmp_path / "x.hlog")]) == 2
    assert capsys.readouterr().err == "tvops: there are more than 4 stages: watch fewer stacks at once\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_whole_lines_of_a_log_that_is_followed(tmp_path: Path) -> None:
    path, sizes = tmp_path / "x.hlog", []

    def intervals() -> Iterator[Interval]:
        for second in range(5):
            yield Interval(BEGIN + second * SECOND, SECOND, counts_of(samples_of(second)), "a.b")
            sizes.append(path.stat().st_size)

    follow_hlog(path, BEGIN, intervals())
    whole, header = path.read_text(), 4
    assert sizes == [len("".join(whole.splitlines(keepends=True)[: header + second])) for second in range(1, 6)]
    path.unlink()
    with room_for(sizes[2] + 100), pytest.raises(UsageError, match=r"x\.hlog: cannot be written: File too large"):
        follow_hlog(path, BEGIN, intervals())
    assert path.read_text() == whole[: sizes[2]]
    assert [one.get_total_count() for one in Log(path).histograms["a.b"]] == [500] * 3
    with pytest.raises(UsageError, match="File exists"):
        follow_hlog(path, BEGIN, intervals())
    assert path.stat().st_size == sizes[2]
    path.unlink()
    with room_for(sizes[0] - 1), pytest.raises(UsageError, match="File too large"):
        follow_hlog(path, BEGIN, intervals())
    assert not path.exists()
    with pytest.raises(UsageError, match="/dev/full: cannot be written: No space left on device"):
        follow_hlog(Path("/dev/full"), BEGIN, intervals())


def test_a_file_is_no_folder_for_distributions(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.touch()
    with pytest.raises(UsageError, match="x: is no folder"):
        place_for_hgrm(file)
