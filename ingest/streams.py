"""Records of a JSONL stream, read by a thread of its own: the program that writes it may say nothing for long."""

from __future__ import annotations

import asyncio
import io
import os
import queue
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Literal, TypeAlias

from ingest import items
from ingest.items import RecordItem
from ingest.load.extracted import Extracted
from ingest.load.json_records import FieldMapping, record_from_line
from ingest.report import Failure
from rag.errors import DocumentError

_AHEAD = 16
"""How many records wait to be taken."""

_Read: TypeAlias = 'RecordItem | Failure | Exception | Literal["end"]'


async def stream_records(
    stream: BinaryIO, source: str, fields: FieldMapping, bad: list[Failure], stopped: asyncio.Event
) -> AsyncGenerator[RecordItem, None]:
    """The records of a stream, until its end or until the run is stopped.

    Nobody waits for the thread that reads: it ends with its read, or with the process.

    Args:
        bad: Takes what is wrong with lines.

    Raises:
        OSError: The stream cannot be read on.
    """
    handover = _Handover(asyncio.get_running_loop())
    stopping = asyncio.create_task(_wake_when_stopped(stopped, handover))
    reader = threading.Thread(target=_hand_over, args=(stream, source, fields, handover), name="standard input")
    reader.daemon = True
    reader.start()
    try:
        while not stopped.is_set():
            match await handover.take():
                case RecordItem() as record:
                    yield record
                case Failure() as failure:
                    bad.append(failure)
                case Exception() as error:
                    raise error
                case "end":
                    return
    finally:
        handover.left.set()
        stopping.cancel()


class _Handover:
    """From a thread to the event loop.

    Attributes:
        left: Set when nobody takes anything any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: queue.Queue[_Read] = queue.Queue(_AHEAD)
        self._woken = asyncio.Event()
        self.left = threading.Event()

    def put(self, what: _Read) -> None:
        """In the thread; waits for room."""
        while not self.left.is_set():
            try:
                self._waiting.put(what, timeout=1)
            except queue.Full:
                continue
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._woken.set)
            return

    async def take(self) -> _Read | None:
        """On the loop; None if it was woken for nothing."""
        if self._waiting.empty():
            await self._woken.wait()
        self._woken.clear()
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def wake(self) -> None:
        """On the loop: let `take` return."""
        self._woken.set()


def _hand_over(stream: BinaryIO, source: str, fields: FieldMapping, handover: _Handover) -> None:
    try:
        with _own(stream) as own:
            for what in _records(own, source, fields):
                handover.put(what)
                if handover.left.is_set():
                    return
        handover.put("end")
    except Exception as error:  # raised where the records are awaited
        handover.put(error)


async def _wake_when_stopped(stopped: asyncio.Event, handover: _Handover) -> None:
    await stopped.wait()
    handover.wake()


@contextmanager
def _own(stream: BinaryIO) -> Iterator[BinaryIO]:
    """The same input under a reader of its own.

    The interpreter closes `sys.stdin` when it ends, which it cannot while another thread waits in it.
    """
    try:
        descriptor = os.dup(stream.fileno())
    except io.UnsupportedOperation:  # it is in memory
        yield stream
        return
    with os.fdopen(descriptor, "rb") as own:
        yield own


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines with their ends; None for one that is too long."""
    most = items.MAX_FILE_BYTES + len(b"\n")
    while line := stream.readline(most):
        if len(line) < most or line.endswith(b"\n"):
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(1 << 20)
        yield None


def _records(stream: BinaryIO, source: str, fields: FieldMapping) -> Iterator[RecordItem | Failure]:
    """An item for each line that holds a record, and what is wrong with each other one that is not empty."""
    for number, line in enumerate(_lines(stream), start=1):
        location = f"standard input, line {number}"
        if line is None:
            yield Failure(location, f"too large: at most {items.MAX_FILE_BYTES:,} bytes are read")
        elif line.strip():
            try:
                child = record_from_line(line.decode("utf-8-sig"), number, fields)
            except (DocumentError, UnicodeDecodeError) as error:
                yield Failure(location, str(error))
                continue
            if isinstance(child.content, Extracted):
                yield RecordItem(line, child.content, source, f"{source}/{child.name}", location)
