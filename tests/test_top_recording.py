"""Recordings that are damaged, made up, or cut short by a full disk: bounded time and memory, one plain line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from tests.full_disk import room_for
from tests.top_documents import BEGIN, GATEWAY, SECOND, STACK, Engine
from tests.top_screen import Readings
from tvops import cli
from tvops.errors import TvopsError, UsageError
from tvops.telemetry_client import Reading
from tvops.top import recording as recordings
from tvops.top import replay as replays
from tvops.top.desk import Desk
from tvops.top.feed import Feed
from tvops.top.lines import plain
from tvops.top.model import Model
from tvops.top.plain import replay_moments
from tvops.top.recording import HEADER, KEY_BLOCKS, MAGIC, Recording, Writer
from tvops.top.replay import Replay

YEAR_1970, YEAR_2100 = 0, 4_102_444_800 * SECOND
SECONDS = 12


def write(path: Path, times: list[int]) -> None:
    """Record a document a second, at the times that a clock told."""
    writer = Writer(path, (STACK,))
    add_all(writer, times)
    writer.close()


def add_all(writer: Writer, times: list[int]) -> None:
    engine = Engine(per_second=20)
    for second, time in enumerate(times):
        writer.add(Reading(GATEWAY, engine.document(BEGIN + second * SECOND), "", 0, True), time)


@pytest.mark.parametrize("wrong", [YEAR_1970, YEAR_2100, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("place", [0, 5, SECONDS - 1])
def test_one_wrong_time_moves_nothing_else(
    place: int, wrong: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.top"
    times = [BEGIN + second * SECOND for second in range(SECONDS)]
    times[place] = wrong
    write(path, times)
    recording = Recording(path)
    gaps = [after - before for before, after in zip(recording.times, recording.times[1:], strict=False)]
    recording.close()
    assert all(gap in (0, SECOND, recordings.MAX_GAP_NS) for gap in gaps)
    assert gaps.count(SECOND) >= SECONDS - 3
    for form in ("--json", "--csv"):
        assert cli.run(["top", "--replay", str(path), form, "--seconds", "20"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert 0 < len(lines) < 100
    assert cli.run(["top", "--replay", str(path), "--json", "--seconds", "1"]) == 0
    told = {json.loads(line)["time"] for line in capsys.readouterr().out.splitlines()}
    assert len(told) >= SECONDS - 2  # every document but those that fall together with the wrong one


def noted(recording: Recording, name: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have every call of a method noted by its last argument."""
    method, calls = getattr(recording, name), list[Any]()

    def note(*arguments: Any) -> Any:
        calls.append(arguments[-1])
        return method(*arguments)

    monkeypatch.setattr(recording, name, note)
    return calls


def test_frames_of_one_moment_are_not_all_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.top", [BEGIN] * 20)
    monkeypatch.setattr(replays, "JUMP_FRAMES", 5)
    recording = Recording(tmp_path / "a.top")
    read = noted(recording, "frame", monkeypatch)
    assert len(list(replay_moments(Replay(recording), 1.0))) == 1
    assert read == [15, 16, 17, 18, 19]
    recording.close()


def made_up(path: Path, blocks: list[tuple[bool, bytes, int]]) -> Path:
    """Write a recording of an endpoint with blocks of our own behind the first: begin of a stream, bytes, size."""
    Writer(path, (STACK,)).close()
    with path.open("ab") as file:
        file.writelines(HEADER.pack(begins, len(packed), size, BEGIN) + packed for begins, packed, size in blocks)
    return path


def test_what_a_crash_filled_with_zeros_is_no_frame(tmp_path: Path) -> None:
    path = made_up(tmp_path / "a.top", [])
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size + 100 * HEADER.size)
    recording = Recording(path)
    assert len(recording.times) == 0
    recording.close()


def test_blocks_without_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recordings, "MAX_FRAMES", 50)
    path = made_up(tmp_path / "a.top", [(True, b"x", 1)] * 51)
    assert cli.run(["top", "--replay", str(path), "--json"]) == 2
    told = capsys.readouterr()
    assert told.err == f"tvops: {path}: unpacks to more than a recording of tvops top may\n"
    assert not told.out
    write(tmp_path / "b.top", [BEGIN] * 60)
    recording = Recording(tmp_path / "b.top")
    assert len(recording.times) == 50  # so that what is written can be read
    recording.close()


def test_a_small_file_that_unpacks_to_much_is_refused_unread(tmp_path: Path) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(recordings.MAX_BLOCK))
    path = made_up(tmp_path / "a.top", [(True, bomb, recordings.MAX_BLOCK)] * 3)
    assert path.stat().st_size < 10_000
    with pytest.raises(UsageError, match="unpacks to more than a recording"):
        Recording(path)
    path.unlink()
    recording = Recording(made_up(path, [(True, bomb, 5)]))  # and one that does not say so
    assert recording.frame(0).error == "the recording is damaged here"
    recording.close()


def test_a_stream_has_no_more_blocks_than_are_unpacked_for_the_last(tmp_path: Path) -> None:
    recording = Recording(made_up(tmp_path / "a.top", [(False, b"x", 1)] * 1000))
    assert len(recording.times) == KEY_BLOCKS - 1
    recording.close()


def test_damage_is_not_unpacked_again_for_every_block_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.top"
    write(path, [BEGIN + second * SECOND for second in range(100)])
    recording = Recording(path)
    damaged = bytearray(path.read_bytes())
    offset = recording._offsets[10] + HEADER.size
    damaged[offset : offset + 4] = random.Random(1).randbytes(4)
    path.write_bytes(damaged)
    unpacked = noted(recording, "_unpack", monkeypatch)
    readings = [recording.frame(number) for number in range(100)]
    whole = [number for number, reading in enumerate(readings) if reading.telemetry]
    assert whole == [*range(9), *range(63, 100)]
    assert len(unpacked) <= 101
    recording.close()


@pytest.mark.parametrize("stacks", [[], [["a", ["http://a:1"]]] * 2000])
def test_a_recording_of_no_stack_or_of_thousands_is_none(stacks: list[object], tmp_path: Path) -> None:
    content = msgspec.msgpack.encode([stacks])
    packed = zstandard.ZstdCompressor().compress(content)
    (tmp_path / "a.top").write_bytes(MAGIC + HEADER.pack(1, len(packed), len(content), 0) + packed)
    with pytest.raises(UsageError, match="is no recording of tvops top"):
        Recording(tmp_path / "a.top")


def test_a_full_disk_ends_a_recording_with_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.top"
    with room_for(8000):
        writer = Writer(path, (STACK,))
        with pytest.raises(TvopsError, match=r"a\.top: recording has ended \(File too large\)"):
            add_all(writer, [BEGIN] * 100)
        writer.close()
    recording = Recording(path)
    assert len(recording.times) > 3
    assert recording._offsets[-1] < path.stat().st_size < 8000
    assert all(recording.frame(number).telemetry for number in range(len(recording.times)))
    recording.close()


def test_a_disk_that_is_full_already_leaves_no_recording(tmp_path: Path) -> None:
    with room_for(30), pytest.raises(TvopsError, match="recording has ended"):
        Writer(tmp_path / "a.top", (STACK,))
    assert not list(tmp_path.iterdir())


def test_the_screen_tells_that_a_recording_has_ended_and_goes_on(tmp_path: Path) -> None:
    desk, source, now = Desk(Model((STACK,))), Readings(), 5 * SECOND
    feed = Feed(desk, source, Writer(tmp_path / "a.top", (STACK,)))
    desk.recording = "a.top"
    with room_for(1000):
        for second in range(2):
            document = Engine(per_second=20).document(BEGIN + second * SECOND)
            source.readings.append(Reading(GATEWAY, document, "", now, True))
            assert feed.take(now)
    assert "recording has ended (File too large)" in "".join(map(plain, desk.lines(200, 24, now)))
    assert desk.recording == ""
    assert desk.model.sources[GATEWAY].document is document
