"""The life of one worker process: it is told a function, then answers one argument after the other.

Requests and replies are frames: eight bytes of length, then a pickle. This module imports little, as it is what a
process waits for before it can work.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from rag.errors import DocumentError

_LENGTH = struct.Struct("!Q")
_NICENESS = 5
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """What a child says of one call: a value, or the words of an error.

    Attributes:
        kind: "value", "document" (a DocumentError), "error" (any other) or "memory".
        again: The child can take another call.
    """

    kind: str
    value: Any
    again: bool = True


def serve(parent: int, memory_bytes: int, alarm_s: int) -> None:
    """The life of a child: its first request is the function, every further one an argument.

    Args:
        parent: Process id.
        memory_bytes: Address space that the process may take beyond what it has once the function is imported.
        alarm_s: After how many seconds a call ends its own process, should the parent not have done so.
    """
    # Descriptors that no library knows; what one prints goes to standard error, and no child of it holds the pipes.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    _end_with(parent)
    _yield_to_others()
    frames = _frames(requests)
    loaded = _attempt(lambda: pickle.loads(next(frames)))  # noqa: S301 - of our own parent
    roomy_bytes = _limit_memory(memory_bytes)
    ready = loaded.kind == "value"
    write_frame(replies, pickle.dumps(Reply(loaded.kind, None if ready else loaded.value, again=ready)))
    if not ready:
        return
    for frame in frames:
        signal.alarm(alarm_s)
        reply = _answer(loaded.value, frame, roomy_bytes)
        signal.alarm(0)
        write_frame(replies, reply)


def _answer(function: Callable[[Any], Any], frame: bytes, roomy_bytes: int | None) -> bytes:
    """The pickled reply to one request."""

    def pickled() -> bytes:
        value = function(pickle.loads(frame))  # noqa: S301 - as above
        # What libraries keep between calls must not use up the memory of a later one.
        again = roomy_bytes is None or _address_space_bytes() < roomy_bytes
        return pickle.dumps(Reply("value", value, again), protocol=pickle.HIGHEST_PROTOCOL)

    reply = _attempt(pickled)
    return reply.value if reply.kind == "value" else pickle.dumps(reply)


def _attempt(function: Callable[[], Any]) -> Reply:
    try:
        return Reply("value", function())
    except BaseException as error:  # also SystemExit: a child ends when its parent wants it to
        if any(isinstance(cause, MemoryError) for cause in _causes(error)):
            return Reply("memory", None, again=False)
        if isinstance(error, DocumentError):
            return Reply("document", str(error))
        return Reply("error", f"{type(error).__name__}: {error}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _end_with(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request was made
            sys.exit(1)


def _yield_to_others() -> None:
    """Leave the processor to the encoder, and the system's memory to the parent."""
    import resource

    os.nice(_NICENESS)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if sys.platform == "linux":
        # Should the system run out of memory, it ends a child before a server.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123 - pathlib is slow to import
            file.write("500")


def _limit_memory(memory_bytes: int) -> int | None:
    """Limit the address space; gives the size above which a child is better replaced, None where there is no limit."""
    if sys.platform != "linux":
        return None
    import resource

    size = _address_space_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = size + memory_bytes
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    except (OSError, ValueError):
        return None
    return size + memory_bytes // 2


def _address_space_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - as above
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _frames(pipe: IO[bytes]) -> Iterator[bytes]:
    with suppress(EOFError):
        while True:
            yield read_frame(pipe)


def write_frame(pipe: IO[bytes], frame: bytes) -> None:
    """Write a frame of any size; blocks until the other end has taken all but what the pipe holds."""
    pipe.write(_LENGTH.pack(len(frame)))
    pipe.write(frame)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes:
    """The content of the next frame.

    Raises:
        EOFError: The other end closed the pipe.
    """
    return _read(pipe, _LENGTH.unpack(_read(pipe, _LENGTH.size))[0])


def _read(pipe: IO[bytes], size: int) -> bytes:
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError("the other end closed the pipe")
    return content
