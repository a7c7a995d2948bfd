"""Reranking speed and fidelity: our graph runtime against CrossEncoder on torch, same cores, same pairs.

    python -m benchmarks.reranking [--pairs 20] [--tokens 128] [--threads 2] [--rounds 15]

The speed is that of a cross-encoder of MiniLM-L6's size with random weights. How well int8 keeps the scores is asked
of the packaged MiniLM's encoder with a random head, over the paragraphs of the documentation.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from rag.adapters.graph_export import Precision
from rag.adapters.graph_reranker import GraphReranker
from rag.adapters.model_folder import read_classifier_folder
from rag.adapters.model_locations import locate
from rag.settings import PACKAGED_MODEL

QUERY = "how long can cooked rice be kept in the fridge before it is unsafe to eat"
IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity"}
PRECISIONS: tuple[Precision, ...] = ("int8", "bf16", "fp32")


def main() -> None:
    """Print the median and best time of each side, the ratios, and the correlations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _speed(_random_model(folder / "random"), folder / "graphs", arguments)
        _fidelity(_packaged_encoder(folder / "packaged"), folder / "graphs", arguments.threads)


def _speed(folder: Path, cache_dir: Path, arguments: argparse.Namespace) -> None:
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(arguments.threads)
    words = files("rag.adapters").joinpath("calibration.txt").read_text(encoding="utf-8").split()
    # A word has a token at least, so that every passage fills its pair.
    passages = [" ".join(words[n * 40 : n * 40 + arguments.tokens]) for n in range(arguments.pairs)]
    reference = CrossEncoder(str(folder), max_length=arguments.tokens, device="cpu", local_files_only=True)
    pairs = [(QUERY, passage) for passage in passages]
    runner = asyncio.Runner()
    sides: dict[str, Callable[[], object]] = {"torch": lambda: reference.predict(pairs, show_progress_bar=False)}
    for precision in PRECISIONS:
        reranker = _graph(folder, cache_dir, precision, arguments.threads, arguments.tokens)
        for timeout_s in (None, 10.0) if precision == "int8" else (None,):
            name = f"{precision} in groups" if timeout_s else precision
            sides[name] = lambda reranker=reranker, timeout_s=timeout_s: runner.run(
                reranker.score(QUERY, passages, timeout_s=timeout_s)
            )
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    processor: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 2):
        for name, score in sides.items():
            started, used = time.perf_counter(), time.process_time()
            score()
            if number > 1:  # the first meet new shapes
                seconds[name].append(time.perf_counter() - started)
                processor[name].append(time.process_time() - used)
    print(f"{arguments.pairs} pairs of {arguments.tokens} tokens, {arguments.threads} threads")
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, times in seconds.items():
        print(
            f"{name:<15} median {median[name] * 1e3:6.1f} ms, best {min(times) * 1e3:6.1f} ms, "
            f"processor {statistics.median(processor[name]) * 1e3:6.1f} ms; "
            f"{median['torch'] / median[name]:.2f}x as fast as torch"
        )


def _fidelity(folder: Path, cache_dir: Path, threads: int) -> None:
    from scipy.stats import pearsonr, spearmanr

    queries, passages = _documentation()
    exact = _scores(_graph(folder, cache_dir, "fp32", threads, 512), queries, passages)
    print(f"{len(queries)} queries x {len(passages)} passages, scores against fp32, per query:")
    for precision in ("bf16", "int8"):
        rounded = _scores(_graph(folder, cache_dir, precision, threads, 512), queries, passages)
        pearson = [pearsonr(*rows).statistic for rows in zip(exact, rounded, strict=True)]
        spearman = [spearmanr(*rows).statistic for rows in zip(exact, rounded, strict=True)]
        print(
            f"{precision}: Pearson mean {np.mean(pearson):.4f}, least {min(pearson):.4f}; "
            f"Spearman mean {np.mean(spearman):.4f}, least {min(spearman):.4f}"
        )


def _documentation() -> tuple[list[str], list[str]]:
    lines = [line for file in sorted(Path("docs").glob("*.md")) for line in file.read_text("utf-8").splitlines()]
    headings = [line.lstrip("# ") for line in lines if line.startswith("## ")]
    paragraphs = [line for line in lines if len(line) > 200 and line[0].isalpha()]
    return headings[:10], paragraphs[:60]


def _scores(reranker: GraphReranker, queries: Sequence[str], passages: Sequence[str]) -> list[Sequence[float]]:
    async def every() -> list[Sequence[float]]:
        return [await reranker.score(query, passages, timeout_s=None) for query in queries]

    return asyncio.run(every())


def _graph(folder: Path, cache_dir: Path, precision: Precision, threads: int, max_tokens: int) -> GraphReranker:
    return GraphReranker(
        read_classifier_folder(folder, folder.name),
        precision=precision,
        cache_dir=cache_dir,
        batch_tokens=4096,
        max_tokens=max_tokens,
        threads=threads,
        on_export=print,
    )


def _random_model(folder: Path) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
        num_labels=1,
        sentence_transformers=IDENTITY,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return _with_tokenizer(folder)


def _packaged_encoder(folder: Path) -> Path:
    import torch
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification.from_pretrained(
        locate(PACKAGED_MODEL, folder), num_labels=1, local_files_only=True
    )
    model.config.sentence_transformers = IDENTITY
    model.save_pretrained(folder)
    return _with_tokenizer(folder)


def _with_tokenizer(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(locate(PACKAGED_MODEL, folder) / name, folder / name)
    return folder


if __name__ == "__main__":
    main()
