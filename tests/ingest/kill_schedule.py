"""Runs of ingestion that are killed at seeded moments, and what must hold afterwards.

`python -m tests.ingest.kill_schedule --kills 200 --seed 1 FOLDER` runs the schedule and prints what went wrong;
the test suite runs a short one. A kill is `SIGKILL`, before or after the n-th step that changes the disk, or after a
while; runs that came to their end first are not counted. Before every one the files change at random: new, other,
gone, moved, and copied ones, and such that go back to a text that they had. Some files change again between the kill
and the run after it. Sometimes the store loses a passage beforehand, so that its repair is killed too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ingest import change, embed, reindex, run, sync
from ingest.discover import discover
from ingest.manifest import Manifest
from ingest.run import Observer
from rag.adapters import qdrant_edge, qdrant_edge_generations
from rag.bootstrap import collection_dir, open_generations
from rag.filters import Comparison
from rag.retrieval.store import PassageStore, passage_id
from rag.settings import Chunking, Data, Settings
from rag.types import Passage
from tests.fake_store import HashEmbedder

SOURCE = "docs"
_STEPS = ("hide", "upsert", "delete", "count", "retrieve")
_RECORDS = ("record", "record_items", "keep_contents", "mark_generation", "forget_generation")
_STEPS_AT_MOST = {"sync": 70, "reindex": 70, "drop": 200}
"""From which the one to be killed at is drawn: about as many as there are."""

_PROJECT = Path(__file__).parents[2]

Operation = Literal["sync", "reindex", "drop"]
Former = dict[str, list[str]]
"""By path below the source's folder: the texts that a file had."""


@dataclass(frozen=True)
class Order:
    """What a process is told to do.

    Attributes:
        sentences: Per passage; another number makes a reindex build something else.
        kill_at: Step at which it kills itself; None for never.
    """

    folder: str
    operation: Operation
    sentences: int
    kill_at: int | None = None


def settings_of(order: Order) -> Settings:
    return Settings(
        data=Data(dir=Path(order.folder) / "data"),
        chunking=Chunking(strategy="sentence-window", sentences=order.sentences, max_tokens=60),
    )


async def carry_out(order: Order) -> None:
    """The whole operation, as the command line does it, with small batches so that there are many."""
    for module, name, size in (
        (change, "SLICE_PASSAGES", 16),
        (embed, "SLICE_PASSAGES", 16),
        (embed, "SAMPLE_PASSAGES", 24),
    ):
        setattr(module, name, size)
    for module in (run, reindex):
        module.build_embedder = lambda *_: HashEmbedder()  # type: ignore[attr-defined]
    settings = settings_of(order)
    if order.operation == "reindex":
        await reindex.reindex(settings, "reindex", Observer(), force=True)
    elif order.operation == "drop":
        await reindex.drop_former(settings, "drop")
    else:
        found = discover([Path(order.folder) / SOURCE], SOURCE)
        await sync.ingest_files(settings, found, sync.Pruning(wanted=True, force=True), "sync", Observer())


def kill_at(step: int, operation: Operation) -> None:
    """Kill this process before the step of that number (even) or after it (odd).

    Where a collection is deleted, each of its files is a step.
    """
    taken = 0

    def counted(call: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
        def reached() -> None:
            nonlocal taken
            if taken == step:
                os.kill(os.getpid(), signal.SIGKILL)
            taken += 1

        if is_async:

            async def stepping(*arguments: Any, **named: Any) -> Any:
                reached()
                result = await call(*arguments, **named)
                reached()
                return result

            return stepping

        def step_taken(*arguments: Any, **named: Any) -> Any:
            reached()
            result = call(*arguments, **named)
            reached()
            return result

        return step_taken

    for name in _STEPS:
        original = getattr(qdrant_edge.QdrantEdgeStore, name)
        setattr(qdrant_edge.QdrantEdgeStore, name, counted(original, is_async=True))
    for name in _RECORDS:
        setattr(Manifest, name, counted(getattr(Manifest, name), is_async=False))
    for module in (qdrant_edge, qdrant_edge_generations):
        module.write_durably = counted(module.write_durably, is_async=False)  # type: ignore[attr-defined]
    if operation == "drop":
        for name in ("unlink", "rmdir"):
            setattr(os, name, counted(getattr(os, name), is_async=False))


# -- the files -------------------------------------------------------------------------------------------------------


def text_of(rng: random.Random, *, sentences: int) -> str:
    words = "tide moon sea sun wine oak steel tank beer malt hop yeast river stone harbour lamp".split()
    return " ".join(f"{' '.join(rng.choices(words, k=6)).capitalize()} {rng.random():.9f}." for _ in range(sentences))


def write_corpus(folder: Path, rng: random.Random) -> None:
    for number in range(20):
        (folder / f"d{number:02}.txt").write_text(text_of(rng, sentences=rng.choice((1, 4, 20))))
    (folder / "long.txt").write_text(text_of(rng, sentences=120))


def change_corpus(folder: Path, rng: random.Random, former: Former) -> None:
    """Change some files; those that lose their text may get it back, now or in a later call."""
    files = sorted(folder.rglob("*.txt"))
    for _ in range(rng.randint(1, 6)):
        file = rng.choice(files)
        kind = rng.choice(("add", "update", "update", "restore", "delete", "move", "copy"))
        if kind == "restore":
            if former:
                again = rng.choice(sorted(former))
                text = rng.choice(former[again])
                _write(folder / again, text, folder, former)
            continue
        if not file.exists():
            continue
        match kind:
            case "add":
                text = text_of(rng, sentences=rng.choice((1, 5, 40)))
                _write(folder / f"n{rng.randrange(1000):03}.txt", text, folder, former)
            case "update":
                _write(file, text_of(rng, sentences=rng.choice((1, 5, 60))), folder, former)
            case "delete" if len(files) > 8:
                _remember(file, folder, former)
                file.unlink()
            case "move":
                target = folder / "moved" / file.name
                target.parent.mkdir(exist_ok=True)
                file.rename(target)
            case "copy":
                _write(folder / f"c{rng.randrange(1000):03}.txt", file.read_text(), folder, former)


def take_back(folder: Path, rng: random.Random, before: dict[str, str]) -> None:
    """Undo some of what changed since `before`."""
    now = wanted_texts(folder)
    for document_id in sorted(now.keys() | before.keys()):
        if now.get(document_id) == before.get(document_id) or rng.random() < 0.4:
            continue
        file = folder / document_id.removeprefix(f"{SOURCE}/")
        if document_id in before:
            file.parent.mkdir(exist_ok=True)
            file.write_text(before[document_id], encoding="utf-8")
        else:
            file.unlink()


def _write(file: Path, text: str, folder: Path, former: Former) -> None:
    _remember(file, folder, former)
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _remember(file: Path, folder: Path, former: Former) -> None:
    if file.exists():
        former.setdefault(file.relative_to(folder).as_posix(), []).append(file.read_text())


def wanted_texts(folder: Path) -> dict[str, str]:
    """Document id -> text, as the files say."""
    return {f"{SOURCE}/{file.relative_to(folder).as_posix()}": file.read_text() for file in folder.rglob("*.txt")}


# -- what is searchable ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What the live collection shows: document id -> the texts of its versions; and passages that are hidden."""

    texts: dict[str, list[str]]
    hidden: int
    passages: int


async def lose_passage(settings: Settings, rng: random.Random) -> str | None:
    """Have the store lose a passage; the text that its documents had."""
    generations = open_generations(settings)
    store = await generations.open(str(await generations.live()))
    try:
        stored = await store.versions("default", SOURCE)
        if not stored:
            return None
        version = rng.choice(sorted(stored))
        first = await store.first_passage("default", version)
        assert first is not None, f"half of {version} is stored"
        ids = [passage_id("default", first.document_id, version, ordinal) for ordinal in range(stored[version])]
        passages = list(await store.retrieve("default", ids))
        text = "".join(item.passage.text for item in passages)
        passages.pop(rng.randrange(len(passages)))
        await store.delete("default", Comparison("eq", "version", version))
        if passages:
            await store.upsert(passages)
        return text
    finally:
        await store.close()


async def see(settings: Settings) -> Seen | None:
    generations = open_generations(settings)
    live = await generations.live()
    if live is None:
        return None
    store = await generations.open(live)
    try:
        hidden = (await store.hidden("default", SOURCE)).versions
        texts: dict[str, list[str]] = {}
        for version in (await store.versions("default", SOURCE)).keys() - hidden:
            passages = await _passages(store, version)
            text = "".join(passage.text for passage in passages)
            for document_id in (passages[0].document_id, *passages[0].also_in):
                texts.setdefault(document_id, []).append(text)
        counts = await store.versions("default", SOURCE)
        return Seen(texts, sum(counts[v] for v in hidden if v in counts), sum(counts.values()))
    finally:
        await store.close()


async def _passages(store: PassageStore, version: str) -> list[Passage]:
    first = await store.first_passage("default", version)
    count = await store.count("default", Comparison("eq", "version", version))
    if first is None:
        return [Passage("", "", "", f"half of {version}", version, 0, 0, 0, "?", "")]
    ids = [passage_id("default", first.document_id, version, ordinal) for ordinal in range(count)]
    return [item.passage for item in await store.retrieve("default", ids)]


@dataclass
class Verdict:
    """How many documents were found wrong, by kind, and in what way the first.

    Attributes:
        failed: Re-runs that did not come to their end.
    """

    lost: int = 0
    doubled: int = 0
    stale: int = 0
    half_written: int = 0
    failed: int = 0
    first: str = ""

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.doubled or self.stale or self.half_written or self.failed)

    def note(self, kind: str, what: str) -> None:
        setattr(self, kind, getattr(self, kind) + 1)
        self.first = self.first or f"{kind}: {what}"


def judge_killed(
    seen: Seen | None,
    before: dict[str, str],
    after: dict[str, str],
    verdict: Verdict,
    damaged: str | None = None,
) -> None:
    """At rest after a kill every document is whole, once, and as it was or as it should be.

    Args:
        damaged: A text of which the store had lost a part before; its documents are judged after the re-run only.
    """
    texts = dict(seen.texts) if seen else {}
    if damaged is not None:
        spared = {document_id for wanted in (before, after) for document_id in wanted if wanted[document_id] == damaged}
        texts = {each: texts[each] for each in texts if each not in spared and not each.startswith("half of ")}
        before = {each: before[each] for each in before if each not in spared}
    for document_id, versions in texts.items():
        if len(versions) > 1:
            verdict.note("doubled", f"{document_id} after the kill")
        for text in versions:
            if text not in (before.get(document_id), after.get(document_id)):
                verdict.note("half_written", f"{document_id} after the kill: {text[:60]!r}")
    for document_id in before.keys() & after.keys() - texts.keys():
        verdict.note("lost", f"{document_id} after the kill")


def judge_rerun(seen: Seen | None, wanted: dict[str, str], verdict: Verdict) -> None:
    """After a plain re-run the collection is what the files are, and nothing is left over."""
    texts = seen.texts if seen else {}
    for document_id, text in wanted.items():
        versions = texts.get(document_id, [])
        if not versions:
            verdict.note("lost", document_id)
        elif len(versions) > 1:
            verdict.note("doubled", document_id)
        elif versions[0] != text:
            verdict.note("stale", document_id)
    for document_id in texts.keys() - wanted.keys():
        verdict.note("stale", f"{document_id}, whose file is gone")
    if seen and seen.hidden:
        verdict.note("half_written", f"{seen.hidden} hidden passages are left")


async def judge_folders(settings: Settings, verdict: Verdict, *, dropped: bool) -> None:
    """No folder stays of a collection that was dropped, or whose making was killed."""
    generations = open_generations(settings)
    there = {await generations.live()} if dropped else set(await generations.all())
    for folder in collection_dir(settings).iterdir():
        if folder.is_dir() and folder.name not in there:
            verdict.note("half_written", f"the folder {folder.name} is left")


# -- the schedule ----------------------------------------------------------------------------------------------------


def run_schedule(folder: Path, *, kills: int, seed: int, tell: Callable[[str], None] = lambda _: None) -> Verdict:
    rng = random.Random(seed)
    verdict = Verdict()
    files = folder / SOURCE
    files.mkdir(parents=True)
    write_corpus(files, rng)
    before: dict[str, str] = {}
    former: Former = {}
    sentences = 2
    has_former = False
    ends: Counter[str] = Counter()
    number = 0
    while ends["killed"] < kills:
        operation = _drawn(rng, is_first=not number, has_former=has_former)
        if operation == "reindex":
            sentences = 5 - sentences
        after = wanted_texts(files) if operation == "sync" else before
        order = Order(str(folder), operation, sentences, kill_at=rng.randrange(_STEPS_AT_MOST[operation]))
        settings = settings_of(order)
        loses = bool(number) and operation != "drop" and rng.random() < 0.25
        damaged = asyncio.run(lose_passage(settings, rng)) if loses else None
        ends[_run_killed(order, after_s=rng.uniform(0.3, 1.2) if rng.random() < 0.3 else None)] += 1
        judge_killed(asyncio.run(see(settings)), before, after, verdict, damaged)
        if operation == "sync" and rng.random() < 0.4:
            if rng.random() < 0.5:
                take_back(files, rng, before)
            else:
                change_corpus(files, rng, former)
            after = wanted_texts(files)
        # The plain re-run, as the user would: the same command; what was not wholly dropped may also meet another.
        again: Operation = "reindex" if operation == "drop" and rng.random() < 0.5 else operation
        if not _run_whole(Order(str(folder), again, sentences)):
            verdict.note("failed", f"the {again} after it")
        else:
            judge_rerun(asyncio.run(see(settings)), after, verdict)
            asyncio.run(judge_folders(settings, verdict, dropped=again == "drop"))
        has_former = again == "reindex" or (has_former and again != "drop")
        if verdict.first:
            lost = ", a passage lost before" if damaged is not None else ""
            tell(f"run {number} ({order}{lost}): {verdict.first}")
            return verdict
        before = after
        if operation == "sync":
            change_corpus(files, rng, former)
        number += 1
        if number % 10 == 0:
            tell(f"{number} runs: {dict(ends)}")
    return verdict


def _drawn(rng: random.Random, *, is_first: bool, has_former: bool) -> Operation:
    if is_first:
        return "sync"
    if has_former and rng.random() < 0.3:
        return "drop"
    return "reindex" if rng.random() < 0.25 else "sync"


def _run_killed(order: Order, *, after_s: float | None) -> str:
    """How it ended."""
    if after_s is not None:
        order = Order(order.folder, order.operation, order.sentences)
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, "--order", json.dumps(asdict(order))], cwd=_PROJECT
    )
    try:
        code = process.wait(after_s if after_s is not None else 60)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    return {0: "came to its end first", -signal.SIGKILL: "killed"}.get(code, f"exit {code}")


def _run_whole(order: Order) -> bool:
    """Whether it came to a good end."""
    command = [sys.executable, "-m", __spec__.name, "--order", json.dumps(asdict(order))]
    return subprocess.run(command, check=False, timeout=120, cwd=_PROJECT).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--order")
    arguments = parser.parse_args()
    if arguments.order:
        order = Order(**json.loads(arguments.order))
        if order.kill_at is not None:
            kill_at(order.kill_at, order.operation)
        asyncio.run(carry_out(order))
        return
    verdict = run_schedule(arguments.folder, kills=arguments.kills, seed=arguments.seed, tell=print)
    print(verdict)
    sys.exit(not verdict.is_clean)


if __name__ == "__main__":
    main()
