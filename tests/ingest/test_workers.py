import asyncio
import gc
import os
import pickle
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ingest.workers import WorkerPool
from rag.errors import DocumentError

ROOMY = 2**30


def perform(task):
    """What the child does: the name of a function below, and its arguments."""
    name, *arguments = task
    return globals()[name](*arguments)


def double(number):
    return 2 * number


def process_id():
    return os.getpid()


def fail(words):
    raise ValueError(words)


def refuse(words):
    raise DocumentError(words)


def refuse_for_memory():
    try:
        bytearray(2**62)
    except MemoryError as error:
        raise DocumentError("corrupt") from error


def leave(code):
    sys.exit(code)


def leave_at_once(code):
    os._exit(code)


def crash(number):
    os.kill(os.getpid(), number)


def hang():
    signal.pause()


def announce_and_hang(path):
    Path(path).write_text(str(os.getpid()))
    hang()


def spin():
    while True:
        pass


def hog(size):
    return len(bytearray(size))


def keep(size):
    globals()["kept"] = bytearray(size)


def big(size):
    return b"x" * size


def size_of(data):
    return len(data)


def shout():
    print("to the library's user")
    os.write(1, b"to the same, from C")
    return sys.stdin.read()


def unpicklable():
    return lambda: None


class Unreadable:
    def __reduce__(self):
        return fail, ("no such thing here",)


def unreadable():
    return Unreadable()


def surroundings():
    # The one of the listing itself is closed when they are looked at.
    descriptors = [path for path in list(Path("/proc/self/fd").iterdir()) if path.exists()]
    return {
        "main": sys.modules["__main__"].__name__ == "__main__" and "pytest" not in sys.modules["__main__"].__dict__,
        "interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "niceness": os.nice(0),
        "others": sum(not path.readlink().name.startswith("pipe:") for path in descriptors if int(path.name) > 2),
        "pipes": sum(path.readlink().name.startswith("pipe:") for path in descriptors if int(path.name) > 2),
        "session": os.getsid(0) == os.getpid(),
    }


def note(path, number):
    with Path(path).open("a") as file:
        file.write(f"{number} ")


@asynccontextmanager
async def pool(workers=1, timeout_s=30.0, memory_bytes=ROOMY):
    async with WorkerPool(perform, workers=workers, timeout_s=timeout_s, memory_bytes=memory_bytes) as opened:
        yield opened


def exists(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


class Announcement:
    """A named pipe through which a call says that it has begun."""

    def __init__(self, folder):
        self.path = str(folder / f"begun-{len(list(folder.iterdir()))}")
        os.mkfifo(self.path)
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    async def process(self):
        """Its process id."""
        written = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.descriptor, written.set)
        try:
            async with asyncio.timeout(30):
                await written.wait()
        finally:
            asyncio.get_running_loop().remove_reader(self.descriptor)
        process = int(os.read(self.descriptor, 100))
        os.close(self.descriptor)
        return process


async def test_a_result_comes_back_and_a_child_is_used_again():
    async with pool() as workers:
        assert await workers.run(("double", 21)) == 42
        first = await workers.run(("process_id",))
        assert await workers.run(("process_id",)) == first != os.getpid()


async def test_a_pool_that_is_not_used_starts_no_process(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", None)
    async with pool():
        pass


async def test_an_error_comes_back_as_a_document_error_with_its_type_and_words():
    async with pool() as workers:
        first = await workers.run(("process_id",))
        with pytest.raises(DocumentError, match=r"^its parser failed: ValueError: no such page$"):
            await workers.run(("fail", "no such page"))
        with pytest.raises(DocumentError, match=r"^password-protected$"):
            await workers.run(("refuse", "password-protected"))
        with pytest.raises(DocumentError, match=r"^its parser failed: SystemExit: 0$"):
            await workers.run(("leave", 0))
        with pytest.raises(DocumentError, match=r"pickle.*lambda"):
            await workers.run(("unpicklable",))
        assert await workers.run(("process_id",)) == first, "none of these is a reason for a new process"
        with pytest.raises(DocumentError, match=r"its result cannot be read \(ValueError: no such thing here"):
            await workers.run(("unreadable",))


async def test_a_call_that_hangs_is_stopped_while_another_goes_on(tmp_path):
    async with pool(workers=2, timeout_s=0.5) as workers:
        steady = await workers.run(("process_id",))
        begun = Announcement(tmp_path)
        hanging = asyncio.create_task(workers.run(("announce_and_hang", begun.path)))
        hung = await begun.process()
        others = [await workers.run(("process_id",)) for _ in range(3)]
        with pytest.raises(
            DocumentError,
            match=r"^its parser took longer than 0.5 s and was stopped; raise ingest.timeout_s or split the file$",
        ):
            await hanging
        assert len({steady, hung, *others}) == 2
        assert await workers.run(("double", 2)) == 4
    assert not exists(hung)


async def test_a_call_that_holds_the_interpreter_is_stopped():
    async with pool(timeout_s=0.3) as workers:
        with pytest.raises(DocumentError, match=r"took longer than 0\.3 s"):
            await workers.run(("spin",))
        assert await workers.run(("double", 1)) == 2


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (("leave_at_once", 3), r"its parser ended its process \(exit code 3\)"),
        (("crash", signal.SIGSEGV), r"its parser crashed \(signal 11\)"),
        (("crash", signal.SIGABRT), r"its parser crashed \(signal 6\)"),
        (("crash", signal.SIGKILL), r"its parser was killed \(signal 9\)"),
    ],
)
async def test_a_child_that_dies_is_named_and_replaced(task, reason):
    async with pool() as workers:
        with pytest.raises(DocumentError, match=reason):
            await workers.run(task)
        assert await workers.run(("double", 4)) == 8


async def test_a_child_that_died_between_two_calls_is_replaced_unnoticed():
    async with pool() as workers:
        first = await workers.run(("process_id",))
        os.kill(first, signal.SIGKILL)
        await asyncio.to_thread(os.waitid, os.P_PID, first, os.WEXITED | os.WNOWAIT)
        assert await workers.run(("process_id",)) != first


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is limited on Linux only")
async def test_a_call_that_takes_too_much_memory_is_stopped():
    async with pool(memory_bytes=256 * 2**20) as workers:
        first = await workers.run(("process_id",))
        with pytest.raises(DocumentError, match=r"^its parser ran out of memory \(limit 256 MiB\)"):
            await workers.run(("hog", 300 * 2**20))
        second = await workers.run(("process_id",))
        with pytest.raises(DocumentError, match=r"^its parser ran out of memory \(limit 256 MiB\)"):
            await workers.run(("refuse_for_memory",))
        assert len({first, second, await workers.run(("process_id",))}) == 3
        assert await workers.run(("hog", 100 * 2**20)) == 100 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="the address space is measured on Linux only")
async def test_a_child_that_keeps_much_memory_is_replaced_before_it_runs_out_of_it():
    async with pool(memory_bytes=256 * 2**20) as workers:
        first = await workers.run(("process_id",))
        await workers.run(("keep", 140 * 2**20))
        assert await workers.run(("hog", 140 * 2**20)) == 140 * 2**20
        assert await workers.run(("process_id",)) != first


async def test_big_arguments_and_results_pass():
    size = 20 * 2**20
    async with pool() as workers:
        assert await workers.run(("big", size)) == b"x" * size
        assert await workers.run(("size_of", b"x" * size)) == size


async def test_what_a_library_prints_or_reads_does_not_touch_the_pipes():
    async with pool() as workers:
        assert await workers.run(("shout",)) == ""
        assert await workers.run(("double", 3)) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
async def test_a_child_has_nothing_of_its_parent():
    mine = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(mine, True)
    async with pool() as workers:
        assert await workers.run(("surroundings",)) == {
            "main": True,
            "interrupt": True,
            "niceness": os.nice(0) + 5,
            "others": 0,
            "pipes": 2,
            "session": True,
        }
    os.close(mine)


async def test_a_cancelled_call_stops_its_child(tmp_path):
    async with pool() as workers:
        begun = Announcement(tmp_path)
        call = asyncio.create_task(workers.run(("announce_and_hang", begun.path)))
        hung = await begun.process()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await workers.run(("process_id",)) != hung
    assert not exists(hung)


async def test_a_call_cancelled_while_its_child_starts_leaves_the_pool_usable():
    async with pool() as workers:
        call = asyncio.create_task(workers.run(("double", 1)))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await workers.run(("double", 5)) == 10


async def test_closing_ends_every_child_and_refuses_further_calls(tmp_path):
    async with pool(workers=2) as workers:
        idle = await workers.run(("process_id",))
        begun = [Announcement(tmp_path), Announcement(tmp_path)]
        calls = [asyncio.create_task(workers.run(("announce_and_hang", one.path))) for one in begun]
        calls.append(asyncio.create_task(workers.run(("double", 1))))
        hung = [await one.process() for one in begun]
    assert not any(map(exists, (idle, *hung)))
    for call in calls:
        with pytest.raises(RuntimeError, match="closed"):
            await call
    gc.collect()  # a process or a pipe that was left open would be a warning, which is an error here


async def test_at_most_so_many_calls_run_at_once_and_others_wait_in_order(tmp_path):
    order = tmp_path / "order"
    async with pool(workers=2) as workers:
        begun = [Announcement(tmp_path), Announcement(tmp_path)]
        calls = [asyncio.create_task(workers.run(("announce_and_hang", one.path))) for one in begun]
        third = asyncio.create_task(workers.run(("process_id",)))
        assert len({await one.process() for one in begun}) == 2
        assert not third.done()
        calls[0].cancel()
        await third
        assert not calls[1].done()
        calls[1].cancel()
        processes = await asyncio.gather(*(workers.run(("process_id",)) for _ in range(20)))
        assert len(set(processes)) <= 2
    async with pool(workers=1) as workers:
        await asyncio.gather(*(workers.run(("note", str(order), number)) for number in range(20)))
    assert order.read_text().split() == [str(number) for number in range(20)]


async def test_a_function_that_a_child_cannot_import_is_named():
    # A module that only this process has.
    module = type(sys)("made_up_here")
    exec("def read(path): return path", module.__dict__)
    sys.modules["made_up_here"] = module
    try:
        async with WorkerPool(module.read, workers=1, timeout_s=5, memory_bytes=ROOMY) as workers:
            with pytest.raises(DocumentError, match="No module named 'made_up_here'"):
                await workers.run("a")
    finally:
        del sys.modules["made_up_here"]


async def test_a_function_that_cannot_be_sent_is_a_mistake_of_the_caller():
    async with WorkerPool(lambda argument: argument, workers=1, timeout_s=5, memory_bytes=ROOMY) as workers:
        with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
            await workers.run("a")


PARENT = """
import asyncio, sys
from ingest.workers import WorkerPool
from tests.ingest.test_workers import perform

async def main():
    async with WorkerPool(perform, workers=2, timeout_s=100, memory_bytes=2**30) as workers:
        await asyncio.gather(workers.run(("announce_and_hang", sys.argv[1])), workers.run(("spin",)))

asyncio.run(main())
"""


def test_children_of_a_parent_that_is_killed_end_even_while_they_are_busy(tmp_path):
    begun = Announcement(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, begun.path],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    asyncio.run(begun.process())
    parent.kill()
    # Standard error is what they all have in common: it ends with the last of them.
    _, messages = parent.communicate(timeout=10)
    assert messages == b""
    assert parent.returncode == -signal.SIGKILL
