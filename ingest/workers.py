"""A pool of worker processes that can be killed, so that no file can hang or crash the run that reads it.

A child is a fresh interpreter (no fork, no `__main__` of the parent, none of its locks and descriptors) that talks
over two pipes. It ends when they do, and on Linux with its parent even while it is busy. This guards against accidents;
it is no sandbox against code that a file smuggles in.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ingest.worker_process import Reply, read_frame, write_frame
from rag.errors import DocumentError

T = TypeVar("T")
R = TypeVar("R")

# With the parent's module path: what it can import, and nothing that lies in the working directory by chance.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[4:]; from ingest.worker_process import serve; serve(*map(int, sys.argv[1:4]))"
)
_START_TIMEOUT_S = 60.0
# A child whose pipe has closed is dead or about to be.
_EXIT_TIMEOUT_S = 5.0
# How much later than the parent the child's own alarm ends it: only where the parent could not.
_ALARM_AFTER_S = 10


class _DiedError(Exception):
    """A child ended in the middle of a call; `returncode` as of `subprocess`."""

    def __init__(self, returncode: int | None) -> None:
        super().__init__(returncode)
        self.returncode = returncode


class WorkerPool(Generic[T, R]):
    """Runs a function in child processes that are started when first needed and replaced when they fail.

    Open it with `async with`; it belongs to the event loop that it is opened in.

    Args:
        function: Of a module, not of `__main__`, and picklable, as are its argument and its result.
        workers: How many calls run at once, at least 1; further ones wait in order.
        timeout_s: Of one call, from the moment its child is ready.
        memory_bytes: Address space that a child may take beyond what it has when it is ready. Held on Linux only.
    """

    def __init__(self, function: Callable[[T], R], *, workers: int, timeout_s: float, memory_bytes: int) -> None:
        self._function = function
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._turn = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker-pipe")
        self._idle: list[_Child] = []
        self._children: set[_Child] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        for child in self._children:
            child.kill()
        # Their pipes are closed, so no thread waits for one.
        self._threads.shutdown()
        for child in self._children:
            child.discard()
        self._children.clear()
        self._idle.clear()

    async def run(self, argument: T) -> R:
        """The function's result for `argument`.

        A call that is cancelled stops its child at once.

        Raises:
            DocumentError: The function raised one, or any other error (whose type and words are in the message), took
                too long or too much memory, or its child died or could not be started.
        """
        async with self._turn:
            if self._closed:
                raise RuntimeError("the worker pool is closed")
            child = await self._ready_child()
            reply = await self._ask(child, argument)
        if reply.kind == "value":
            value: R = reply.value
            return value
        if reply.kind == "document":
            raise DocumentError(reply.value)
        if reply.kind == "memory":
            raise DocumentError(
                f"its parser ran out of memory (limit {_size(self._memory_bytes)}); raise the limit or split the file"
            )
        raise DocumentError(f"its parser failed: {reply.value}")

    async def _ready_child(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
            self._forget(child)
        try:
            # In this thread, not in one of the pool: Linux ends a child with the thread that started it.
            child = _Child(self._function, memory_bytes=self._memory_bytes, alarm_s=self._timeout_s + _ALARM_AFTER_S)
        except OSError as error:
            raise DocumentError(f"no process could be started to read it: {error}") from error
        self._children.add(child)
        try:
            reply = await self._wait(child, child.start, _START_TIMEOUT_S)
        except TimeoutError as error:
            raise DocumentError(f"no process to read it was ready within {_START_TIMEOUT_S:g} s") from error
        except _DiedError as error:
            raise DocumentError(f"the process to read it ended at its start ({_ending(error.returncode)})") from error
        if reply.kind != "value":
            self._forget(child)
            raise DocumentError(f"no process could be started to read it: {reply.value}")
        return child

    async def _ask(self, child: _Child, argument: T) -> Reply:
        try:
            reply = await self._wait(child, lambda: child.ask(argument), self._timeout_s)
        except TimeoutError as error:
            raise DocumentError(
                f"its parser took longer than {self._timeout_s:g} s and was stopped; "
                "raise ingest.timeout_s or split the file"
            ) from error
        except _DiedError as error:
            raise DocumentError(
                f"its parser {_ending(error.returncode)}: the file may be damaged, "
                f"or need more memory than {_size(self._memory_bytes)}"
            ) from error
        if reply.again:
            self._idle.append(child)
        else:
            self._forget(child)
        return reply

    async def _wait(self, child: _Child, exchange: Callable[[], Reply], timeout_s: float) -> Reply:
        """What `exchange`, in a thread, returns; on any failure, also cancellation, the child is ended."""
        waiting = self._threads.submit(exchange)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(waiting)
        except BaseException as error:
            self._forget(child, after=waiting)
            if isinstance(error, _DiedError) and self._closed:
                raise RuntimeError("the worker pool was closed during a call") from error
            raise

    def _forget(self, child: _Child, after: Future[Reply] | None = None) -> None:
        """End a child; its pipes are closed once the thread that uses them is done."""
        child.kill()
        self._children.discard(child)
        if after is None:
            child.discard()
        else:
            after.add_done_callback(lambda _: child.discard())


class _Child:
    """One child process, as the parent sees it. `start` and `ask` block; each other method returns at once."""

    def __init__(self, function: Callable[..., Any], *, memory_bytes: int, alarm_s: float) -> None:
        self._function = function
        numbers = (os.getpid(), memory_bytes, int(alarm_s) + 1)
        self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
            [sys.executable, "-P", "-c", _BOOT, *map(str, numbers), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # What the function starts is killed with it, and Ctrl-C at a terminal is the parent's alone.
            start_new_session=True,
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("no pipes")
        self._requests, self._replies = self._process.stdin, self._process.stdout

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def start(self) -> Reply:
        return self.ask(self._function)

    def ask(self, argument: object) -> Reply:
        request = pickle.dumps(argument, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            write_frame(self._requests, request)
            frame = read_frame(self._replies)
        except (EOFError, OSError) as error:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_EXIT_TIMEOUT_S)
            raise _DiedError(self._process.poll()) from error
        try:
            reply: Reply = pickle.loads(frame)  # noqa: S301 - of our own child
        except Exception as error:  # whatever the result's own types raise
            return Reply("error", f"its result cannot be read ({type(error).__name__}: {error})", again=False)
        return reply

    def kill(self) -> None:
        if self.is_alive:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def discard(self) -> None:
        """Close the pipes and reap the process; it is dead or being killed. A second time changes nothing."""
        self._process.wait()
        with suppress(OSError):  # a request that was not written whole
            self._requests.close()
        self._replies.close()


def _ending(returncode: int | None) -> str:
    if returncode is None:
        return "closed its pipe"
    if returncode == -signal.SIGKILL:
        return "was killed (signal 9)"
    return f"crashed (signal {-returncode})" if returncode < 0 else f"ended its process (exit code {returncode})"


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
