"""The whole service on a BEIR folder: quality kept, time spent, memory held.

    python -m benchmarks.service FOLDER [--split NAME] [--queries 300]

Fidelity is nDCG@10 through POST /v1/search divided by that of an exact in-memory evaluation of the same encoder,
the same BM25 and the same fusion over the unchunked documents. Times are medians of one run: in-process search,
then the same queries over loopback to a `rag serve` of its own, one after another. Its memory is that of a server
that finds its model exported.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import math
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from evals.datasets import Dataset, load_dataset
from evals.index import open_judged
from evals.measures import documents_of, evaluate, mean, parse_measure
from rag.adapters.bm25 import Bm25Encoder, term_counts
from rag.configuration import load_settings
from rag.models import build_embedder
from rag.request import SearchRequest
from rag.retrieval.fusion import convex_fusion, order, reciprocal_rank_fusion
from rag.settings import Settings
from rag.types import Candidate

NDCG = parse_measure("ndcg@10")
Run = dict[str, Mapping[str, float]]


def main() -> None:
    """Print what the module's docstring promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--queries", type=int, help="how many are timed and scored; all if not given")
    arguments = parser.parse_args()
    settings = load_settings()
    dataset = load_dataset(arguments.folder, split=arguments.split)
    dataset = replace(dataset, queries=dataset.queries[: arguments.queries])
    qrels = {query.id: dataset.qrels[query.id] for query in dataset.queries}

    in_process_ms, scratch = asyncio.run(_in_process(settings, dataset))
    with _server(scratch) as (port, process):
        idle_mb = _resident_mb(process.pid)
        run, http_ms, server_ms = _over_http(port, dataset)
        used_mb = _resident_mb(process.pid)
    exact = mean(evaluate(_exact(settings, dataset), qrels, [NDCG]))[str(NDCG)]
    service = mean(evaluate(run, qrels, [NDCG]))[str(NDCG)]
    print(f"nDCG@10: service {service:.4f}, exact unchunked {exact:.4f}, fidelity {service / exact:.4f}")
    print(f"search in process, median: {statistics.median(in_process_ms):.2f} ms")
    over = statistics.median(total - inside for total, inside in zip(http_ms, server_ms, strict=True))
    print(f"POST /v1/search, median: {statistics.median(http_ms):.2f} ms; above the search inside it: {over:.2f} ms")
    print(
        f"above in-process, medians subtracted: {statistics.median(http_ms) - statistics.median(in_process_ms):.2f} ms"
    )
    print(f"resident memory of rag serve: idle {idle_mb:.0f} MB, after {len(http_ms)} queries {used_mb:.0f} MB")


async def _in_process(settings: Settings, dataset: Dataset) -> tuple[list[float], Settings]:
    """Milliseconds of each query, and the settings of the collection they were asked of."""
    times = []
    async with open_judged(settings, dataset, corpus=None, notify=print) as judged:
        pipeline, report = judged.pipeline, judged.report
        if report is not None:
            share = report.encoder_seconds / report.seconds
            print(f"ingested {report.passages} passages in {report.seconds:.1f} s, {share:.1%} inside the encoder")
        for query in [*dataset.queries[:20], *dataset.queries]:
            started = time.perf_counter()
            await pipeline.search(SearchRequest(query=query.text, tenant=settings.data.tenant))
            times.append((time.perf_counter() - started) * 1e3)
    return times[20:], judged.settings


@contextmanager
def _server(settings: Settings) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    command = [str(Path(sys.executable).with_name("rag")), "serve", "--port", "0"]
    place = {"RAG_DATA_DIR": str(settings.data.dir), "RAG_STORE__COLLECTION": settings.store.collection}
    environment = {**os.environ, **place}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                break
        else:
            sys.exit("rag serve did not start")
        # Its log goes on; unread, it would fill the pipe and stop the server.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield int(found[1]), process
        finally:
            process.terminate()


def _over_http(port: int, dataset: Dataset) -> tuple[Run, list[float], list[float]]:
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def search(text: str, **options: int) -> tuple[dict, float]:
        body = json.dumps({"query": text, **options})
        started = time.perf_counter()
        connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
        answer = connection.getresponse().read()
        return json.loads(answer), (time.perf_counter() - started) * 1e3

    for query in dataset.queries[:20]:
        search(query.text)
    timed = [search(query.text) for query in dataset.queries]
    run: Run = {}
    for query in dataset.queries:
        found, _ = search(query.text, k=50)
        scores: dict[str, float] = {}
        for candidate in found["candidates"]:
            scores.setdefault(candidate["document_id"], candidate["score"])
        run[query.id] = scores
    return run, [ms for _, ms in timed], [answer["timings_ms"]["total"] for answer, _ in timed]


def _exact(settings: Settings, dataset: Dataset) -> Run:
    """Both legs computed exactly over whole documents, fused as the service fuses."""
    texts = [f"{document.title}\n{document.text}" for document in dataset.documents]
    ids = [document.id for document in dataset.documents]
    embedder = build_embedder(settings)
    passages = asyncio.run(embedder.embed_passages(texts))
    lexical = settings.lexical
    average = float(np.mean(term_counts(texts, language=lexical.language)))
    bm25 = Bm25Encoder(language=lexical.language, k1=lexical.k1, b=lexical.b, average_length=average)
    postings: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for row, vector in enumerate(bm25.encode_passages(texts)):
        for index, value in zip(vector.indices, vector.values, strict=True):
            postings[index].append((row, value))
    depth, weight = settings.retrieval.retrieve_k, settings.retrieval.weight_dense
    run: Run = {}
    for query in dataset.queries:
        dense = passages @ asyncio.run(embedder.embed_queries([query.text]))[0]
        words = np.zeros(len(ids))
        for index in bm25.encode_query(query.text).indices:
            found = postings[index]
            idf = math.log(1 + (len(ids) - len(found) + 0.5) / (len(found) + 0.5))
            for row, value in found:
                words[row] += idf * value
        legs = [
            order(Candidate(ids[i], ids[i], float(scores[i])) for i in np.argsort(-scores)[:depth] if scores[i] > 0)
            for scores in (dense, words)
        ]
        if settings.retrieval.fusion == "rrf":
            fused = reciprocal_rank_fusion(legs, weights=(weight, 1 - weight), k=settings.retrieval.rrf_k)
        else:
            fused = convex_fusion(legs, weights=(weight, 1 - weight))
        run[query.id] = documents_of(fused)
    return run


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


if __name__ == "__main__":
    main()
