"""One pass over queries, kept: what the legs found and how a reranker scored it, before anything is fused.

From a pass every fusion, weight and interpolation is a pure function, so that hundreds of them cost one retrieval.
Passes are kept in blocks of queries below `<data.dir>/eval-cache`, in a folder whose name is a hash of all that
determines them: a run that was killed goes on after its last whole block, and another split of the same collection runs
only what is new.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.code_version import code_hash
from evals.run import OnQuery, Searcher
from rag.errors import StoreError
from rag.retrieval.fusion import complete
from rag.retrieval.passage_text import reranked_text
from rag.retrieval.rerank import Reranker
from rag.retrieval.store import PassageReader
from rag.telemetry import Stopwatch
from rag.types import Candidate, Ranking, SearchResult

QUERIES_PER_BLOCK = 50


@dataclass(frozen=True, slots=True)
class Pass:
    """What was retrieved for one query.

    Attributes:
        legs: `bm25` and `dense`, whole; a leg that could not run is missing, and `degraded` says why.
        completed: The legs with the scores of all that any leg retrieved, as fusion reads them.
        timings_ms: By stage, of the search that was really made, which may have been in an earlier run.
    """

    legs: Mapping[str, Ranking]
    timings_ms: Mapping[str, float]
    degraded: tuple[str, ...] = ()
    completed: Mapping[str, Ranking] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RerankPass:
    """How a reranker scored passages for one query, all in one call, without a limit of time.

    Attributes:
        scores: By passage id; raw, they compare within this pass only.
        milliseconds: Of the call that was really made, for all its passages.
    """

    scores: Mapping[str, float]
    milliseconds: float


def cache_folder(data_dir: Path, stage: str, *determined_by: object) -> Path:
    """Where passes of a stage are kept, all of which `determined_by` and the code of `rag` determine.

    Args:
        stage: `legs` or `rerank`.
        determined_by: Values whose `repr` says all about them: the key of the collection, settings, identities.
    """
    digest = hashlib.sha256(repr((code_hash(), *determined_by)).encode()).hexdigest()
    return data_dir / "eval-cache" / f"{stage}-{digest[:16]}"


async def run_passes(
    search: Searcher, queries: Sequence[str], *, folder: Path | None, on_query: OnQuery | None = None
) -> list[Pass]:
    """A pass for each query, in order: from the cache, or made now and kept there.

    Args:
        search: Whole rankings `bm25` and `dense` are taken from its results; nothing else is.
        folder: From `cache_folder`; None keeps nothing, for a collection that may change at any moment.
        on_query: Told of the progress, kept passes included.

    Raises:
        StoreError: What is kept is damaged, or cannot be written.
    """
    known = {query: _pass_from_json(record) for query, record in _read_blocks(folder)}
    missing = [query for query in dict.fromkeys(queries) if query not in known]
    done, total = len(set(queries)) - len(missing), len(set(queries))
    for block in _blocks(missing):
        for query in block:
            known[query] = _pass_of(await search(query))
            done += 1
            if on_query is not None:
                on_query(done, total)
        _write_block(folder, {query: _pass_to_json(known[query]) for query in block})
    return [known[query] for query in queries]


async def run_rerank_passes(
    reranker: Reranker,
    store: PassageReader,
    tenant: str,
    pools: Mapping[str, Sequence[str]],
    *,
    folder: Path | None,
    on_query: OnQuery | None = None,
) -> dict[str, RerankPass]:
    """The reranker's scores of each query's pool of passages: from the cache, or made now and kept there.

    A kept pass serves if it has a score for every passage of the pool as it now reads; scores of two calls are never
    mixed.

    Args:
        pools: Query -> ids of the passages to score. One that is no longer stored gets no score.
        folder: From `cache_folder`, determined by the reranker's identity and what else changes its scores.
        on_query: Told of the progress, kept passes included.

    Raises:
        StoreError: What is kept is damaged, or cannot be written.
        ModelRuntimeError, ProviderError: The reranker failed.
    """
    kept = dict(_read_blocks(folder))
    passes: dict[str, RerankPass] = {}
    done = 0
    for block in _blocks(list(pools)):
        fresh: dict[str, Any] = {}
        for query in block:
            stored = await store.fetch(tenant, pools[query])
            texts = {passage: reranked_text(stored[passage]) for passage in pools[query] if passage in stored}
            hashes = {passage: _hash(text) for passage, text in texts.items()}
            record = kept.get(query, {"hashes": {}})
            if any(record["hashes"].get(passage) != text_hash for passage, text_hash in hashes.items()):
                watch = Stopwatch()
                with watch.stage("rerank"):
                    scores = await reranker.score(query, list(texts.values()), timeout_s=None)
                record = fresh[query] = {
                    "hashes": hashes,
                    "scores": dict(zip(texts, map(float, scores), strict=True)),
                    "milliseconds": watch.timings_ms()["rerank"],
                }
            passes[query] = RerankPass(record.get("scores", {}), record.get("milliseconds", 0.0))
            done += 1
            if on_query is not None:
                on_query(done, len(pools))
        _write_block(folder, fresh)
    return passes


def _blocks(queries: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(queries), QUERIES_PER_BLOCK):
        yield queries[start : start + QUERIES_PER_BLOCK]


def _pass_of(result: SearchResult) -> Pass:
    legs = {leg: result.stages[leg] for leg in ("bm25", "dense") if leg in result.stages}
    return Pass(legs, dict(result.timings_ms), result.degraded, dict(result.completed))


def _pass_to_json(of: Pass) -> dict[str, Any]:
    record = {"legs": _rankings_to_json(of.legs), "timings_ms": of.timings_ms, "degraded": of.degraded}
    if of.completed:
        # The rest of a completed leg is the leg.
        retrieved = {leg: {candidate.passage_id for candidate in ranking} for leg, ranking in of.legs.items()}
        added = {
            leg: tuple(candidate for candidate in ranking if candidate.passage_id not in retrieved[leg])
            for leg, ranking in of.completed.items()
        }
        record["added"] = _rankings_to_json(added)
    return record


def _pass_from_json(record: Mapping[str, Any]) -> Pass:
    legs = _rankings_from_json(record["legs"])
    completed = complete(legs, _rankings_from_json(record["added"])) if "added" in record else {}
    return Pass(legs, record["timings_ms"], tuple(record["degraded"]), completed)


def _rankings_to_json(rankings: Mapping[str, Ranking]) -> dict[str, list[tuple[str, str, float]]]:
    return {leg: [(c.passage_id, c.document_id, c.score) for c in ranking] for leg, ranking in rankings.items()}


def _rankings_from_json(rankings: Mapping[str, Any]) -> dict[str, Ranking]:
    return {leg: tuple(Candidate(*candidate) for candidate in ranking) for leg, ranking in rankings.items()}


def _read_blocks(folder: Path | None) -> Iterator[tuple[str, Any]]:
    """Every query with its record; of two records of one query the later one comes later."""
    files = sorted(folder.glob("*.json.gz")) if folder is not None else []
    for file in files:
        try:
            yield from json.loads(gzip.decompress(file.read_bytes())).items()
        except (OSError, EOFError, ValueError) as error:
            raise StoreError(f"{file} cannot be read ({error}); delete it, and its queries are run again") from error


def _write_block(folder: Path | None, records: Mapping[str, Any]) -> None:
    """In one step: a reader sees the whole block or none of it."""
    if folder is None or not records:
        return
    # Equal scores must stay equal, so nothing is rounded.
    data = gzip.compress(json.dumps(records).encode(), compresslevel=3, mtime=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((int(file.name[:6]) for file in folder.glob("*.json.gz")), default=0)
        unfinished = folder / f"{os.getpid()}.unfinished"
        unfinished.write_bytes(data)
        unfinished.replace(folder / f"{number:06}-{hashlib.sha256(data).hexdigest()[:8]}.json.gz")
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error}") from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
