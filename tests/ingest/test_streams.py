"""Records of standard input, as they come and while they do not come."""

import asyncio
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import pytest

from ingest.items import RecordItem
from ingest.load.json_records import FieldMapping
from ingest.report import Failure
from ingest.streams import stream_records
from tests.ingest.workplace import Workplace
from tests.models_cache import exported_minilm

PROGRAM = Path(sys.executable).with_name("rag")
FIELDS = FieldMapping()


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as output, os.fdopen(writing, "wb", buffering=0) as entry:
        yield output, entry


def line(number: int, text: str = "Text.") -> bytes:
    return json.dumps({"id": number, "text": text}).encode() + b"\n"


async def records(stream: BinaryIO) -> tuple[list[RecordItem], list[Failure]]:
    bad: list[Failure] = []
    return [record async for record in stream_records(stream, "feed", FIELDS, bad, asyncio.Event())], bad


async def test_records_come_in_order_each_with_the_number_of_its_line():
    found, bad = await records(io.BytesIO(line(7) + b"\n" + line(8)))
    assert [(record.item_id, record.location) for record in found] == [
        ("feed/7", "standard input, line 1"),
        ("feed/8", "standard input, line 3"),
    ]
    assert bad == []
    assert (await records(io.BytesIO()))[0] == []


async def test_many_records_are_read_no_further_ahead_than_a_few(pipe: tuple[BinaryIO, BinaryIO]):
    read = 0

    class Counting(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            read += 1
            return super().readline(size)

    stream = Counting(b"".join(line(number) for number in range(500)))
    async with aclosing(stream_records(stream, "feed", FIELDS, [], asyncio.Event())) as arriving:
        taken = 0
        async for _ in arriving:
            taken += 1
            assert read <= taken + 20
    assert taken == 500


async def test_a_line_that_is_too_long_is_a_bad_line_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch):
    longest = line(1, "x" * 100)
    monkeypatch.setattr("ingest.items.MAX_FILE_BYTES", len(longest) - 1)
    found, bad = await records(io.BytesIO(longest + line(2, "x" * 101) + line(3) + b"y" * 1000))
    assert [record.item_id for record in found] == ["feed/1", "feed/3"]
    reason = f"too large: at most {len(longest) - 1} bytes are read"
    assert bad == [Failure("standard input, line 2", reason), Failure("standard input, line 4", reason)]


async def test_the_last_line_may_be_as_long_as_any_other(monkeypatch: pytest.MonkeyPatch):
    last = line(1).rstrip()
    monkeypatch.setattr("ingest.items.MAX_FILE_BYTES", len(last))
    found, bad = await records(io.BytesIO(last))
    assert ([record.item_id for record in found], bad) == (["feed/1"], [])


async def test_a_stream_that_breaks_off_with_an_error_raises_it():
    class Broken(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        await records(Broken())


async def test_the_loop_goes_on_while_nothing_comes_and_a_stop_ends_the_wait(pipe: tuple[BinaryIO, BinaryIO]):
    output, entry = pipe
    stopped = asyncio.Event()
    entry.write(line(1))
    async with asyncio.timeout(10):
        arriving = stream_records(output, "feed", FIELDS, [], stopped)
        assert (await anext(arriving)).item_id == "feed/1"
        waiting = asyncio.ensure_future(anext(arriving, None))
        await asyncio.to_thread(lambda: None)
        assert not waiting.done()
        stopped.set()
        assert await waiting is None
    entry.close()


async def test_the_thread_ends_when_nobody_takes_its_records(pipe: tuple[BinaryIO, BinaryIO]):
    stream = io.BytesIO(b"".join(line(number) for number in range(100)))
    async with aclosing(stream_records(stream, "feed", FIELDS, [], asyncio.Event())) as arriving:
        await anext(arriving)
        (reader,) = (thread for thread in threading.enumerate() if thread.name == "standard input")
    await asyncio.to_thread(reader.join, 10)
    assert not reader.is_alive()


async def test_what_comes_is_ingested_while_the_rest_does_not_come(tmp_path, monkeypatch, pipe):
    """The writer goes on only when the run has said that all it wrote so far was embedded and stored."""
    from ingest.report import Progress
    from ingest.run import Observer
    from ingest.sync import Pruning, ingest_stream

    place = Workplace(tmp_path, monkeypatch)
    monkeypatch.setattr("ingest.embed._EARLY_PASSAGES", 1)
    await place.stream(*({"id": number, "text": f"Record {number}."} for number in range(3)))
    output, entry = pipe

    def on_progress(progress: Progress) -> None:
        if progress.documents == 1 and progress.passages:
            entry.close()

    entry.write(line(10, "It came early."))
    async with asyncio.timeout(30):
        report = await ingest_stream(
            place.settings, output, "feed", Pruning(), "rag ingest -", Observer(on_progress=on_progress)
        )
    assert (report.added, report.interrupted) == (1, False)


@pytest.fixture
def folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shutil.copytree(exported_minilm(tmp_path_factory), tmp_path / ".rag" / "cache" / "graphs")
    return tmp_path


def started(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LD_LIBRARY_PATH")}
    return subprocess.Popen(
        [PROGRAM, *arguments],
        cwd=folder,
        env={**kept, "HOME": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )


def test_an_interrupt_ends_a_run_whose_standard_input_says_nothing_and_keeps_what_was_complete(folder: Path):
    with started(folder, "ingest", "-", "--source", "feed", "--json") as first:
        first.communicate(b"".join(line(number, f"Record {number}.") for number in range(3)), timeout=60)
        assert first.returncode == 0
    with started(folder, "ingest", "-", "--source", "feed", "--json") as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        try:
            # More than one batch, so that some of it is written; what is read of the rest is told by the progress.
            running.stdin.write(b"".join(line(number, f"Record {number}. It is new.") for number in range(3, 400)))
            while (event := json.loads(running.stderr.readline())).get("documents", 0) < 64:
                assert event["event"] == "progress"
            running.send_signal(signal.SIGINT)
            running.wait(timeout=3)
            assert running.returncode == 130
            assert b"Traceback" not in running.stderr.read()
            report = json.loads(running.stdout.read())
        finally:
            running.kill()
    assert report["interrupted"] is True
    assert report["added"] >= 64
    assert report["failed"] == []
    with started(folder, "documents", "list", "--limit", "1000", "--json") as listing:
        out, _ = listing.communicate(timeout=60)
    assert len(json.loads(out)["documents"]) == 3 + report["added"]
