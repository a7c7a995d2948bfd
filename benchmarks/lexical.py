"""How fast texts become BM25 term weights: ours against Qdrant's encoder and rank-bm25's counting, in one run.

    python -m benchmarks.lexical ../shared/data/scifact [--language english] [--texts 5000]

Ours is timed twice, on words it has not met and on words it has. Times are of one core's work, not of the wall
clock, so that a busy machine changes them little.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

from evals.datasets import load_dataset
from rag.adapters.bm25 import Bm25Encoder, term_counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a test collection with corpus.jsonl")
    parser.add_argument("--language", default="english")
    parser.add_argument("--texts", type=int, default=5000)
    arguments = parser.parse_args()
    documents = load_dataset(arguments.folder).documents[: arguments.texts]
    texts = [f"{document.title}\n{document.text}" for document in documents]
    counts = term_counts(texts, language=arguments.language)
    average_length = max(1.0, sum(counts) / len(counts))
    ours = Bm25Encoder(language=arguments.language, k1=1.2, b=0.75, average_length=average_length)
    seconds = {
        "ours, new words": seconds_of(lambda: ours.encode_passages(texts)),
        "ours, known words": seconds_of(lambda: ours.encode_passages(texts)),
        "qdrant_edge.Bm25": seconds_of(lambda: qdrant(texts, arguments.language, average_length)),
        "rank-bm25 on a plain split": seconds_of(lambda: rank_bm25(texts)),
    }
    words = sum(len(text.split()) for text in texts)
    characters = sum(map(len, texts))
    print(f"{len(texts)} texts, {words} words between white space, {characters} characters, {arguments.language}")
    for name, taken in seconds.items():
        ratio = taken / seconds["ours, new words"]
        print(
            f"{name:28} {len(texts) / taken:9.0f} texts/s {words / taken:9.0f} words/s "
            f"{characters / taken:10.0f} characters/s   {ratio:5.2f} of our time"
        )


def seconds_of(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def qdrant(texts: list[str], language: str, average_length: float) -> None:
    import qdrant_edge

    model = qdrant_edge.Bm25(qdrant_edge.Bm25Config(k=1.2, b=0.75, avg_len=average_length, language=language))
    for text in texts:
        vector = model.embed_document(text)
        tuple(vector.indices)
        tuple(vector.values)


def rank_bm25(texts: list[str]) -> None:
    from rank_bm25 import BM25Okapi

    BM25Okapi([re.findall(r"\w+", text.lower()) for text in texts])


if __name__ == "__main__":
    main()
