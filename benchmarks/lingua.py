"""LLMLingua-2 speed and fidelity: our graph runtime against the `llmlingua` package, same cores, weights and texts.

    python -m benchmarks.lingua [FOLDER] [--tokens 20000] [--characters 1500] [--layers 12] [--hidden 768] [--rounds 2]

Without FOLDER a classifier of the given size with random weights is made in a temporary folder (the defaults are the
size of bert-base; its vocabulary is that of the packaged embedding model). Random weights cost what trained ones cost,
but all their tokens look alike, so that coarser precisions decide as they please. With `--layers 0` it is the packaged
embedding model under a random classifier, whose decisions can be compared. Sides run in turn; each counts with its
best round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rag.adapters.graph_lingua2 import GraphLingua2, kept_characters
from rag.adapters.kept_spans import kept_spans
from rag.adapters.llmlingua_package import load_package
from rag.adapters.model_folder import read_classifier_folder
from rag.adapters.model_locations import locate
from rag.settings import PACKAGED_MODEL

RATE = 0.5
PERCENTILE = int(100 * (1 - RATE) + 1)  # as the package computes it
PRECISIONS = ("fp32", "bf16", "int8")


class Timed:
    """A callable that adds up the time spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return self._function(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - started


def main() -> None:
    """Print one line per side, then the ratios to the package."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--characters", type=int, default=1500, help="of a source")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or random_classifier(Path(scratch) / "model", arguments.layers, arguments.hidden)
        package = load_package(folder, folder.name, "ForTokenClassification")
        texts = sources(package.tokenizer, arguments.tokens, arguments.characters)
        compare(folder, Path(scratch) / "cache", package, texts, arguments.rounds, arguments.precisions)


def compare(folder: Path, cache: Path, package: Any, texts: list[str], rounds: int, precisions: Sequence[str]) -> None:
    """Run every side in turn and print what it took."""
    counted = sum(len(package.tokenizer(text).input_ids) for text in texts)
    print(f"{folder.name}: {len(texts)} sources, {counted} tokens, rate {RATE}")
    forward = Timed(package.model.forward)
    package.model.forward = forward
    sides: dict[str, tuple[Callable[[], list[str]], Timed]] = {
        "package": (lambda: package.compress_prompt_llmlingua2(texts, rate=RATE)["compressed_prompt_list"], forward)
    }
    graphs: dict[str, GraphLingua2] = {}
    for precision in precisions:
        graph = graphs[precision] = GraphLingua2(
            read_classifier_folder(folder, folder.name), precision=precision, cache_dir=cache, batch_tokens=4096
        )
        run = Timed(graph._runtime.run)  # noqa: SLF001
        graph._runtime.run = run  # noqa: SLF001
        sides[precision] = (lambda graph=graph: shown(graph, texts), run)
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, (compress, model) in sides.items():
            model.seconds = 0.0
            started = time.perf_counter()
            compress()
            took = time.perf_counter() - started
            best[name] = min(best.get(name, (float("inf"), 0.0)), (took, took - model.seconds))
    labelled = package.compress_prompt_llmlingua2(texts, rate=RATE, return_word_label=True, word_sep="\n")
    theirs = [line.endswith(" 1") for line in labelled["fn_labeled_original_prompt"].split("\n")]
    whole, around = best["package"]
    for name, (took, outside) in best.items():
        same = 1.0 if name == "package" else agreement(kept_words(graphs[name], texts), theirs)
        print(
            f"{name:8} {took:7.2f} s {counted / took:7.0f} tokens/s; outside the model {outside * 1000:6.0f} ms "
            f"({outside / took:5.1%}); package/this {whole / took:6.2f}, outside {around / outside:6.2f}; "
            f"words decided as the package does {same:.2%}"
        )


def agreement(ours: Sequence[bool], theirs: Sequence[bool]) -> float:
    """Share of words on which both decide the same."""
    return sum(a == b for a, b in zip(ours, theirs, strict=True)) / len(theirs)


def kept_words(graph: GraphLingua2, texts: Sequence[str]) -> list[bool]:
    """Of every word of every text, whether it is kept at the package's percentile for the rate."""
    return [bool(kept) for window in graph.classify(texts) for kept in window.kept(PERCENTILE)]


def shown(graph: GraphLingua2, texts: Sequence[str]) -> list[str]:
    """What is left of each text at the package's percentile for the rate, its words one space apart."""
    flags = kept_characters(texts, graph.classify(texts), PERCENTILE)
    return [
        " ".join(text[start:end] for start, end in kept_spans(text, kept))
        for text, kept in zip(texts, flags, strict=True)
    ]


def sources(tokenizer: Any, tokens: int, characters: int) -> list[str]:
    """Texts of the length of a source until there are so many tokens."""
    text = files("rag.adapters").joinpath("calibration.txt").read_text(encoding="utf-8")
    pieces = [text[start : start + characters] for start in range(0, len(text), characters)]
    chosen: list[str] = []
    count = 0
    while count < tokens:
        chosen.append(pieces[len(chosen) % len(pieces)])
        count += len(tokenizer(chosen[-1]).input_ids)
    return chosen


def random_classifier(folder: Path, layers: int, hidden: int) -> Path:
    """A BERT token classifier of this size over the packaged model's tokenizer; with 0 layers over its encoder too."""
    import torch
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(7)
    packaged = locate(PACKAGED_MODEL, folder)
    if layers:
        published = json.loads((packaged / "config.json").read_text(encoding="utf-8"))
        config = BertConfig(
            vocab_size=published["vocab_size"],
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            intermediate_size=4 * hidden,
            initializer_range=0.05,
        )
        model = BertForTokenClassification(config)
    else:
        model = BertForTokenClassification.from_pretrained(packaged)
    model.eval().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        if (packaged / name).is_file():
            shutil.copy(packaged / name, folder)
    return folder


if __name__ == "__main__":
    main()
