from __future__ import annotations

from dataclasses import replace

import pytest

from evals.passes import QUERIES_PER_BLOCK, Pass, cache_folder, run_passes, run_rerank_passes
from rag.errors import StoreError
from rag.retrieval.fusion import complete
from rag.retrieval.store import IndexedPassage
from rag.types import Candidate, Passage, SearchResult, SparseVector
from tests.evals.conftest import NamingReranker
from tests.fake_store import InMemoryStore

SCORE = 0.1 + 0.2  # has no short decimal form


class Searcher:
    def __init__(self, *, fail_at: int | None = None) -> None:
        self.asked: list[str] = []
        self.fail_at = fail_at

    async def __call__(self, query: str) -> SearchResult:
        if len(self.asked) == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append(query)
        ranking = (Candidate(f"{query}#1", query, SCORE), Candidate("z#1", "z", -1e-7))
        legs = {"dense": ranking} if query == "q1" else {"bm25": (), "dense": ranking}
        notes = ("no word",) if query == "q1" else ()
        found = SearchResult(query, ranking, {}, {**legs, "fused": ranking}, {"total": float(len(self.asked))}, notes)
        scored = {"bm25": (Candidate("z#1", "z", SCORE / 3),)}
        return replace(found, completed=complete(legs, scored)) if query == "q0" else found


async def test_a_kept_pass_is_exactly_what_was_found(tmp_path):
    first = await run_passes(Searcher(), ["q0", "q1"], folder=tmp_path)
    again = Searcher()
    assert await run_passes(again, ["q0", "q1"], folder=tmp_path) == first
    assert again.asked == []
    dense = (Candidate("q0#1", "q0", SCORE), Candidate("z#1", "z", -1e-7))
    bm25 = (Candidate("z#1", "z", SCORE / 3), Candidate("q0#1", "q0", 0.0))
    assert first[0] == Pass({"bm25": (), "dense": dense}, {"total": 1.0}, (), {"bm25": bm25, "dense": dense})
    assert first[1].legs.keys() == {"dense"}
    assert first[1].degraded == ("no word",)


async def test_a_killed_run_goes_on_after_its_last_whole_block(tmp_path):
    queries = [f"q{number}" for number in range(2 * QUERIES_PER_BLOCK + 5)]
    with pytest.raises(KeyboardInterrupt):
        await run_passes(Searcher(fail_at=QUERIES_PER_BLOCK + 7), queries, folder=tmp_path)
    again, told = Searcher(), []
    passes = await run_passes(again, queries, folder=tmp_path, on_query=lambda *numbers: told.append(numbers))
    assert again.asked == queries[QUERIES_PER_BLOCK:]
    assert told[0] == (QUERIES_PER_BLOCK + 1, len(queries))
    assert told[-1] == (len(queries), len(queries))
    assert [each.legs["dense"][0].document_id for each in passes] == queries


async def test_only_new_queries_are_run_and_each_once(tmp_path):
    await run_passes(Searcher(), ["a", "b"], folder=tmp_path)
    again = Searcher()
    passes = await run_passes(again, ["c", "a", "c"], folder=tmp_path)
    assert again.asked == ["c"]
    assert [each.legs["dense"][0].document_id for each in passes] == ["c", "a", "c"]


async def test_without_a_folder_nothing_is_kept():
    searcher = Searcher()
    await run_passes(searcher, ["a"], folder=None)
    await run_passes(searcher, ["a"], folder=None)
    assert searcher.asked == ["a", "a"]


async def test_a_damaged_block_is_reported_by_name(tmp_path):
    await run_passes(Searcher(), ["a"], folder=tmp_path)
    (block,) = tmp_path.iterdir()
    block.write_bytes(block.read_bytes()[:20])
    with pytest.raises(StoreError, match=rf"{block.name} cannot be read .*; delete it"):
        await run_passes(Searcher(), ["a"], folder=tmp_path)


def test_another_setting_or_stage_has_another_folder(tmp_path):
    folders = [cache_folder(tmp_path, *by) for by in (("legs", 1), ("legs", 2), ("legs", 1, 2), ("rerank", 1))]
    assert len(set(folders)) == 4
    assert cache_folder(tmp_path, "legs", 1) == folders[0]
    assert folders[0].parent == tmp_path / "eval-cache"


def stored(name: str, text: str, *, title: str = "") -> IndexedPassage:
    passage = Passage(name, "t", "s", name, "v", 0, 0, len(text), text, title)
    return IndexedPassage(passage, None, SparseVector((), ()))


async def test_reranker_scores_are_kept_until_a_passage_reads_otherwise_or_another_is_asked_for(tmp_path):
    store, reranker = InMemoryStore(), NamingReranker()
    await store.upsert([stored("a", "A whale."), stored("b", "No animal.", title="Whale watching"), stored("c", "")])

    async def scores(*pool: str) -> dict[str, float]:
        passes = await run_rerank_passes(reranker, store, "t", {"the whale ?": pool}, folder=tmp_path)
        return {passage: passes["the whale ?"].scores[passage] for passage in pool}

    assert await scores("a", "b") == {"a": 1.0, "b": 1.0}
    assert await scores("b") == {"b": 1.0}
    assert len(reranker.asked) == 1
    assert await scores("a", "c") == {"a": 1.0, "c": 0.0}
    assert len(reranker.asked) == 2
    await store.upsert([stored("a", "A whale is a whale.")])
    assert await scores("a", "c") == {"a": 2.0, "c": 0.0}
    assert len(reranker.asked) == 3


async def test_a_passage_that_is_gone_gets_no_score():
    store = InMemoryStore()
    await store.upsert([stored("a", "A whale.")])
    passes = await run_rerank_passes(NamingReranker(), store, "t", {"the whale ?": ["gone", "a"]}, folder=None)
    assert passes["the whale ?"].scores == {"a": 1.0}
    assert passes["the whale ?"].milliseconds >= 0
