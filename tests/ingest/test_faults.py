"""What fails under a run: whatever it is, a plain re-run leaves nothing lost, doubled or stale."""

import asyncio
import errno
import itertools
import random
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ingest.items import Item
from ingest.manifest import Manifest
from ingest.prepare import Preparation, PreparedItem, prepare_item
from ingest.workers import WorkerPool
from rag.adapters import qdrant_edge, qdrant_edge_generations
from rag.adapters.qdrant_edge import QdrantEdgeStore
from rag.errors import ModelRuntimeError, RagError, StoreError
from rag.settings import Ingest
from tests.ingest.bench import FragileEmbedder, numbered
from tests.ingest.kill_schedule import Verdict, judge_killed, judge_rerun, wanted_texts
from tests.ingest.workplace import Workplace, copy_folder

pytestmark = pytest.mark.usefixtures("in_small_steps")

DISK_FULL = OSError(errno.ENOSPC, "No space left on device")


class Failing:
    """A step that fails at its n-th call and at all after it, as a full disk does."""

    def __init__(self, survives: int, error: Exception) -> None:
        self.survives = survives
        self._error = error

    def __call__(self) -> None:
        if self.survives == 0:
            raise self._error
        self.survives -= 1


@contextmanager
def store_refuses(place: Workplace, survives: int) -> Iterator[None]:
    fails = Failing(survives, StoreError("the embedded store failed: refused"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("hide", "upsert", "delete"):
            patch.setattr(QdrantEdgeStore, name, _before(fails, getattr(QdrantEdgeStore, name)))
        yield


@contextmanager
def durable_files_cannot_be_written(place: Workplace, survives: int) -> Iterator[None]:
    fails = Failing(survives, DISK_FULL)
    real = qdrant_edge.write_durably

    def write_durably(file: Path, text: str) -> None:
        fails()
        real(file, text)

    with pytest.MonkeyPatch.context() as patch:
        for module in (qdrant_edge, qdrant_edge_generations):
            patch.setattr(module, "write_durably", write_durably)
        yield


@contextmanager
def manifest_cannot_be_written(place: Workplace, survives: int) -> Iterator[None]:
    fails = Failing(survives, sqlite3.OperationalError("database or disk is full"))
    real = Manifest._transaction

    @contextmanager
    def transaction(manifest: Manifest) -> Iterator[sqlite3.Connection]:
        with real(manifest) as connection:
            yield connection
            fails()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Manifest, "_transaction", transaction)
        yield


@contextmanager
def embedder_fails(place: Workplace, survives: int) -> Iterator[None]:
    place.embedder.fails_at = survives
    yield
    place.embedder.fails_at = None


def _before(fails: Failing, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def failing(*arguments: Any) -> Any:
        fails()
        return await call(*arguments)

    return failing


FAULTS = {
    "store": (store_refuses, StoreError, "refused"),
    "files": (durable_files_cannot_be_written, StoreError, "No space left on device"),
    "manifest": (manifest_cannot_be_written, StoreError, "disk is full.* and run it again; what was searchable"),
    "embedder": (embedder_fails, ModelRuntimeError, "the model failed"),
}


class Stage:
    """A place with files in two states, that can be set back to where it was when the second began."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = Workplace(folder, monkeypatch)
        self._kept = folder / "kept"
        self.before: dict[str, str] = {}

    async def prepare(self, *, is_filled: bool) -> None:
        """The second state is written; the first was ingested, if that is asked for."""
        if is_filled:
            self.place.write("a.txt", numbered("twin", range(4)))
            self.place.write("b.txt", numbered("twin", range(4)))
            self.place.write("c.txt", numbered("moving", range(3)))
            self.place.write("d.txt", "Going.")
            self.place.write("e.txt", "Staying.")
            await self.place.sync()
            self.before = wanted_texts(self.place.docs)
            (self.place.docs / "c.txt").unlink()
            (self.place.docs / "d.txt").unlink()
        self.place.write("a.txt", numbered("changed", range(6)))
        self.place.write("moved/c.txt", numbered("moving", range(3)))
        self.place.write("e.txt", "Staying.")
        self.place.write("f.txt", numbered("twin", range(4)))
        if (self.place.folder / "data").exists():
            copy_folder(self.place.folder / "data", self._kept)

    @property
    def wanted(self) -> dict[str, str]:
        return wanted_texts(self.place.docs)

    def reset(self) -> None:
        shutil.rmtree(self.place.folder / "data", ignore_errors=True)
        if self._kept.exists():
            copy_folder(self._kept, self.place.folder / "data")
        self.place.embedder = FragileEmbedder()

    async def sync(self) -> None:
        await self.place.sync(prune=True, force=True)

    async def judge(self, verdict: Verdict) -> None:
        """After a run that failed, and then after a plain one."""
        judge_killed(await self.place.see(), self.before, self.wanted, verdict)
        await self.sync()
        judge_rerun(await self.place.see(), self.wanted, verdict)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("fault", "is_filled"),
    [*((fault, True) for fault in FAULTS), ("files", False)],
    ids=[*(f"{fault}, an update" for fault in FAULTS), "files, nothing before"],
)
async def test_a_run_that_fails_at_any_step_is_made_good_by_the_next(stage: Stage, fault: str, is_filled: bool):
    inject, kind, words = FAULTS[fault]
    await stage.prepare(is_filled=is_filled)
    verdict = Verdict()
    for survives in itertools.count():
        stage.reset()
        with inject(stage.place, survives):
            try:
                await stage.sync()
            except RagError as error:
                failed: RagError | None = error
            else:
                failed = None
        if failed is None:
            break
        assert isinstance(failed, kind)
        with pytest.raises(kind, match=words):
            raise failed
        await stage.judge(verdict)
        assert verdict.is_clean, f"failed at step {survives}: {verdict}"
    assert survives >= 2


async def test_what_a_failed_run_embedded_is_not_embedded_again(stage: Stage):
    await stage.prepare(is_filled=False)
    stage.reset()
    stage.place.embedder.fails_at = 3
    with pytest.raises(ModelRuntimeError):
        await stage.sync()
    done = len(stage.place.embedder.texts)
    whole = (await _embedded_by_an_undisturbed_run(stage)) - done
    stage.place.embedder = FragileEmbedder()
    assert done > 0
    report = await stage.place.sync()
    # A step may have been embedded and not been written when the run ended.
    assert whole <= report.embedded <= whole + 2 * 2
    assert (await stage.place.judged()).is_clean


async def _embedded_by_an_undisturbed_run(stage: Stage) -> int:
    kept = stage.place.folder / "aside"
    data = stage.place.folder / "data"
    data.rename(kept)
    stage.place.embedder = FragileEmbedder()
    await stage.sync()
    count = len(stage.place.embedder.texts)
    shutil.rmtree(data)
    kept.rename(data)
    return count


@pytest.mark.parametrize("is_filled", [False, True], ids=["nothing before", "an update"])
@pytest.mark.parametrize("is_whole", [False, True], ids=["a run that died", "a run that ended"])
async def test_a_manifest_whose_log_was_cut_anywhere_is_made_good(stage: Stage, is_filled: bool, is_whole: bool):
    await stage.prepare(is_filled=is_filled)
    stage.reset()
    files = stage.place.manifest_file, stage.place.manifest_file.with_name("manifest.sqlite-wal")
    contents: list[bytes] = []

    def close(manifest: Manifest) -> None:
        contents[:] = [file.read_bytes() for file in files]
        manifest.connection.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Manifest, "close", close)
        if is_whole:
            await stage.sync()
        else:
            with store_refuses(stage.place, 9), pytest.raises(StoreError):
                await stage.sync()
    reached = stage.place.folder / "reached"
    copy_folder(stage.place.folder / "data", reached)

    database, log = contents
    assert len(log) > 20_000
    rng = random.Random(1)
    for length in (0, *(rng.randrange(len(log)) for _ in range(5)), len(log)):
        shutil.rmtree(stage.place.folder / "data")
        copy_folder(reached, stage.place.folder / "data")
        for file, content in zip(files, (database, log[:length]), strict=True):
            file.write_bytes(content)
        verdict = Verdict()
        await stage.judge(verdict)
        assert verdict.is_clean, f"cut at {length} of {len(log)}: {verdict}"


def prepare_unless_told_to_hang(item: Item, preparation: Preparation) -> PreparedItem:
    if b"hang" in item.read():
        time.sleep(60)
    return prepare_item(item, preparation)


async def test_a_file_whose_parser_hangs_is_named_and_keeps_its_last_version(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    place = stage.place
    monkeypatch.setattr("ingest.run.WorkerPool", WorkerPool)
    monkeypatch.setattr("ingest.run.prepare_item", prepare_unless_told_to_hang)
    quick = place.settings.model_copy(update={"ingest": Ingest(workers=2, timeout_s=0.5)})
    monkeypatch.setattr(Workplace, "settings", quick)
    place.write("a.txt", "One.")
    place.write("b.txt", "Two.")
    await place.sync()

    place.write("a.txt", "Please hang.")
    place.write("c.txt", "Three.")
    report = await place.sync(prune=True)
    (failure,) = report.failed
    assert failure.path == str(place.docs / "a.txt")
    assert "took longer than 0.5 s and was stopped; raise ingest.timeout_s or split the file" in failure.reason
    assert await place.texts() == {"docs/a.txt": "One.", "docs/b.txt": "Two.", "docs/c.txt": "Three."}

    place.write("a.txt", "Quick again.")
    assert (await place.sync()).updated == 1
    assert (await place.judged()).is_clean


async def test_a_run_that_is_cancelled_anywhere_is_made_good_by_the_next(stage: Stage):
    await stage.prepare(is_filled=True)
    verdict = Verdict()
    for step in range(0, 24, 6):
        stage.reset()
        await _cancel_at(stage, step)
        await stage.judge(verdict)
        assert verdict.is_clean, f"cancelled at step {step}: {verdict}"


async def _cancel_at(stage: Stage, step: int) -> None:
    real, steps = QdrantEdgeStore._run, itertools.count()

    async def cancelling(store: QdrantEdgeStore, *arguments: Any) -> Any:
        if next(steps) == step:
            running.cancel()
        return await real(store, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QdrantEdgeStore, "_run", cancelling)
        running = asyncio.create_task(stage.sync())
        with pytest.raises(asyncio.CancelledError):
            await running
