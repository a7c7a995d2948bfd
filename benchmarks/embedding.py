"""Embedding speed and fidelity: our graph runtime against sentence-transformers on torch, same cores, same texts.

    python -m benchmarks.embedding FOLDER [--split NAME] [--passages 400]

FOLDER is a BEIR folder. The texts are the passages that ingestion would embed. Each side runs at each of several
batch sizes, in turn, and counts with its best; tokens are real ones, padding is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from evals.datasets import Dataset, load_dataset
from evals.index import documents_of_dataset
from evals.measures import evaluate, mean, parse_measure
from ingest.chunking.passages import make_passages
from ingest.run import chunker
from rag.adapters.graph_embedder import GraphEmbedder
from rag.adapters.model_folder import read_model_folder
from rag.adapters.model_locations import PACKAGED_SHA256, locate
from rag.configuration import load_settings
from rag.models import models_dir
from rag.retrieval.passage_text import indexed_text
from rag.settings import PACKAGED_MODEL, Settings

BATCH_SIZES = (8, 16, 32, 64)
BATCH_TOKENS = (1024, 2048, 4096)
ROUNDS = 3


def main() -> None:
    """Print one line per configuration, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--passages", type=int, default=400)
    arguments = parser.parse_args()
    settings = load_settings()
    dataset = load_dataset(arguments.folder, split=arguments.split)
    texts = _passage_texts(settings, dataset)[: arguments.passages]
    queries = [query.text for query in dataset.queries[:300]]
    torch_model = _torch_model(settings)
    tokens = sum(len(ids) for ids in torch_model.tokenizer(texts, truncation=True, max_length=256)["input_ids"])
    print(f"{len(texts)} passages, {tokens} tokens, {tokens / len(texts):.0f} per passage")

    candidates: dict[str, Callable[[Sequence[str]], object]] = {}
    for size in BATCH_SIZES:
        candidates[f"torch batch={size}"] = lambda t, size=size: torch_model.encode(list(t), batch_size=size)
    for precision in ("int8", "bf16", "fp32"):
        for size in BATCH_TOKENS if precision == "int8" else BATCH_TOKENS[1:2]:
            embedder = _graph(settings, precision, size)
            candidates[f"{precision} batch_tokens={size}"] = embedder._embed  # noqa: SLF001
    speed = _speeds(candidates, texts, tokens)
    best = {name: max(v for k, v in speed.items() if k.startswith(name)) for name in ("torch", "int8", "bf16", "fp32")}
    for name in ("int8", "bf16", "fp32"):
        print(f"{name} / torch: {best[name] / best['torch']:.2f}x")

    for name, embed in (("torch", candidates["torch batch=32"]), ("int8", _graph(settings, "int8", 2048)._embed)):  # noqa: SLF001
        print(f"one query, median: {name} {_query_ms(embed, queries):.2f} ms")
    for name, embed in (("torch", candidates["torch batch=32"]), ("int8", _graph(settings, "int8", 2048)._embed)):  # noqa: SLF001
        print(f"dense nDCG@10, unchunked, exact search: {name} {_dense_ndcg(dataset, embed):.4f}")


def _passage_texts(settings: Settings, dataset: Dataset) -> list[str]:
    chunk = chunker(settings.chunking)
    return [
        indexed_text(passage)
        for document in documents_of_dataset(dataset)
        for passage in make_passages(document, tenant="benchmark", spans=chunk(document))
    ]


def _torch_model(settings: Settings):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(locate(PACKAGED_MODEL, models_dir(settings))), device="cpu")


def _graph(settings: Settings, precision, batch_tokens: int) -> GraphEmbedder:
    return GraphEmbedder(
        read_model_folder(locate(PACKAGED_MODEL, models_dir(settings)), PACKAGED_MODEL),
        precision=precision,
        cache_dir=settings.data.dir / "cache" / "graphs",
        batch_tokens=batch_tokens,
        expected_sha256=PACKAGED_SHA256,
        on_export=print,
    )


def _speeds(candidates: dict[str, Callable[[Sequence[str]], object]], texts: Sequence[str], tokens: int):
    """Tokens per second, the median of rounds in which the candidates take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for embed in candidates.values():
        embed(texts[:256])
    for _ in range(ROUNDS):
        for name, embed in candidates.items():
            started = time.perf_counter()
            embed(texts)
            seconds[name].append(time.perf_counter() - started)
    speed = {name: tokens / statistics.median(measured) for name, measured in seconds.items()}
    for name, value in speed.items():
        print(f"{name:<26} {value:>9,.0f} tokens/s")
    return speed


def _query_ms(embed: Callable[[Sequence[str]], object], queries: Sequence[str]) -> float:
    times = []
    for query in queries:
        started = time.perf_counter()
        embed([query])
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def _dense_ndcg(dataset: Dataset, embed: Callable[[Sequence[str]], object]) -> float:
    documents = np.asarray(embed([f"{d.title}\n{d.text}" for d in dataset.documents]))
    queries = np.asarray(embed([query.text for query in dataset.queries]))
    scores = queries @ documents.T
    run = {}
    for row, query in zip(scores, dataset.queries, strict=True):
        best = np.argsort(-row)[:100]
        run[query.id] = {dataset.documents[i].id: float(row[i]) for i in best}
    measure = parse_measure("ndcg@10")
    return mean(evaluate(run, dataset.qrels, [measure]))[str(measure)]


if __name__ == "__main__":
    main()
