from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.adapters.graph_export import Precision
from rag.adapters.graph_lingua2 import GraphLingua2, kept_characters
from rag.adapters.kept_spans import kept_spans
from rag.adapters.llmlingua_package import load_package
from rag.adapters.model_folder import read_classifier_folder
from rag.errors import ConfigurationError, ModelNotFoundError, ModelRuntimeError
from rag.tokens import count_tokens
from tests.rag.adapters import tiny_lingua
from tests.rag.adapters.tiny_lingua import BACKUPS, QUESTION, TEXTS, TIDES, WINE, sources

FAMILIES = (tiny_lingua.BERT, tiny_lingua.XLM_ROBERTA)
RATES = (0.8, 0.5, 0.15)
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
MARKDOWN = "## Backups\n\n| days | size |\n|---|---|\n| 30 | 1.5 GB |\n\n- don't `keep_them` (see #12), ok?!\n\n"
TEXT_OF_EVERY_KIND = {
    "sentences": BACKUPS + WINE + TIDES,
    "several windows": (BACKUPS + TIDES + WINE) * 15,
    "digits": "12 months at 14.5 degrees, 1,250 tanks; 3.14 and 2026-01-31. " * 20,
    "marks and line ends": MARKDOWN * 12,
    "other scripts": "Münchner Weingut, naïve – 東京 deleted… 😀abc é. " * 20,
    "special tokens in the text": "<s> The [SEP] backups </s> are [UNK] kept [CLS]. " * 4,
    "windows that end inside a number": "at 1.5 and 22.75 " * 200,
}
WITHOUT_FULL_STOPS = "moon" * 150 + " zebra" * 300


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lingua.all_models(tmp_path_factory)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


def graph_of(folder: Path, cache_dir: Path, precision: Precision = "fp32") -> GraphLingua2:
    return GraphLingua2(
        read_classifier_folder(folder, "tiny"), precision=precision, cache_dir=cache_dir, batch_tokens=2048
    )


@pytest.fixture(scope="module", params=FAMILIES, ids=["BERT", "XLM-RoBERTa"])
def both(request: pytest.FixtureRequest, models: Path, cache_dir: Path) -> tuple[GraphLingua2, Any]:
    """The graph and the package over the same weights."""
    folder = models / request.param
    return graph_of(folder, cache_dir), load_package(folder, "tiny", "ForTokenClassification")


def package_words(package: Any, text: str, rate: float) -> tuple[list[bool], str]:
    """Whether the package keeps each word, and what it puts out."""
    result = package.compress_prompt_llmlingua2([text], rate=rate, return_word_label=True)
    labelled = result["fn_labeled_original_prompt"].split("\t\t|\t\t")
    return [item.endswith(" 1") for item in labelled], result["compressed_prompt"]


def percentile(rate: float) -> int:
    """As the package computes it."""
    return int(100 * (1 - rate) + 1)


def shown(graph: GraphLingua2, text: str, rate: float) -> str:
    (flags,) = kept_characters([text], graph.classify([text]), percentile(rate))
    return "".join(text[start:end] for start, end in kept_spans(text, flags))


def solid(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("text", TEXT_OF_EVERY_KIND.values(), ids=TEXT_OF_EVERY_KIND)
def test_the_words_kept_are_those_of_the_package(both: tuple[GraphLingua2, Any], text: str):
    graph, package = both
    windows = graph.classify([text])
    for rate in RATES:
        labels, output = package_words(package, text, rate)
        assert [bool(kept) for window in windows for kept in window.kept(percentile(rate))] == labels
        assert solid(shown(graph, text, rate)) == solid(output)


def test_a_word_cut_by_the_end_of_a_window_is_decided_as_in_the_package_and_shown_without_its_marks(
    both: tuple[GraphLingua2, Any],
):
    graph, package = both
    windows = graph.classify([WITHOUT_FULL_STOPS])
    assert len(windows) > 1
    for rate in RATES:
        labels, output = package_words(package, WITHOUT_FULL_STOPS, rate)
        assert [bool(kept) for window in windows for kept in window.kept(percentile(rate))] == labels
        assert solid(shown(graph, WITHOUT_FULL_STOPS, rate)) == solid(output).replace("#", "")


def test_all_sources_at_once_get_what_each_gets_alone(both: tuple[GraphLingua2, Any]):
    graph, _ = both
    texts = ["", *TEXT_OF_EVERY_KIND.values(), "😀"]
    together = graph.classify(texts)
    alone = [(i, window) for i, text in enumerate(texts) for window in graph.classify([text])]
    assert [window.text for window in together] == [i for i, _ in alone]
    for ours, (_, theirs) in zip(together, alone, strict=True):
        assert np.allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
        assert (ours.weights == theirs.weights).all()


async def test_the_target_is_met_over_all_sources_though_none_meets_it_alone(both: tuple[GraphLingua2, Any]):
    graph, _ = both
    texts = list(TEXT_OF_EVERY_KIND.values())
    total = sum(map(count_tokens, texts))
    for share in (0.75, 0.4, 0.15):
        kept = await graph.compress(QUESTION, sources(*texts), target_tokens=round(share * total))
        assert sum(count_tokens(source.shown) for source in kept) == pytest.approx(share * total, rel=0.1)


def test_what_a_normalising_tokenizer_rewrites_is_shown_as_it_stands(models: Path, tmp_path: Path, cache_dir: Path):
    folder = tmp_path / "normalising"
    shutil.copytree(models / tiny_lingua.XLM_ROBERTA, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": {"type": "NFKC"}}), encoding="utf-8")
    text = "The ﬁve backups cost ½ of it, nai\u0308ve or not. " * 12

    plain, normalising = (
        shown(graph_of(path, cache_dir), text, 0.9) for path in (models / tiny_lingua.XLM_ROBERTA, folder)
    )

    assert set("ﬁ½\u0308") & set(plain) == set()  # unknown to it
    assert set(normalising) == set(solid(text)) | ({" "} & set(normalising))


async def test_a_source_of_unknown_characters_is_left_out_unless_there_is_no_other(both: tuple[GraphLingua2, Any]):
    graph, _ = both
    kept = await graph.compress(QUESTION, sources(BACKUPS, "😀 🙃", "", WINE), target_tokens=15)
    assert [source.number for source in kept] == [1, 4]

    alone = sources("😀 🙃")
    assert await graph.compress(QUESTION, alone, target_tokens=1) == alone


async def test_a_context_that_fits_is_shown_as_it_is(both: tuple[GraphLingua2, Any]):
    graph, _ = both
    whole = sources(*TEXTS)
    assert await graph.compress(QUESTION, whole, target_tokens=sum(map(count_tokens, TEXTS))) == whole


def test_bf16_decides_nearly_every_word_alike(models: Path, cache_dir: Path):
    text = TEXT_OF_EVERY_KIND["several windows"]
    folder = models / tiny_lingua.BERT
    exact, coarse = (
        np.concatenate([window.kept(50) for window in graph_of(folder, cache_dir, kind).classify([text])])
        for kind in PRECISIONS
    )
    assert np.mean(exact == coarse) > 0.9


async def test_a_model_that_fails_is_named(models: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch):
    graph = graph_of(models / tiny_lingua.BERT, cache_dir)

    def fail(*_: object, **__: object) -> None:
        raise ModelRuntimeError("the compression model tiny failed: out of memory")

    monkeypatch.setattr(graph._runtime, "run", fail)
    with pytest.raises(ModelRuntimeError, match="the compression model tiny failed"):
        await graph.compress(QUESTION, sources(*TEXTS), target_tokens=20)


def test_serving_does_not_import_torch(models: Path, cache_dir: Path):
    graph_of(models / tiny_lingua.BERT, cache_dir)  # exported now, if it was not yet
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from tests.rag.adapters.test_graph_lingua2 import graph_of, sources, TEXTS, QUESTION\n"
        f"graph = graph_of(Path({str(models / tiny_lingua.BERT)!r}), Path({str(cache_dir)!r}))\n"
        "kept = asyncio.run(graph.compress(QUESTION, sources(*TEXTS), target_tokens=40))\n"
        "assert kept and not {'torch', 'transformers', 'llmlingua'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "not a LLMLingua-2 token classifier but BertForMaskedLM"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "tells 3 kinds of tokens apart, LLMLingua-2 two"),
        ({"model_type": "electra"}, "electra model; LLMLingua-2 knows bert and xlm-roberta"),
        ({"max_position_embeddings": 256}, "reads 256 tokens at most"),
    ],
)
def test_a_folder_that_is_no_such_classifier_is_refused(
    models: Path, tmp_path: Path, change: dict[str, Any], says: str
):
    folder = tmp_path / "changed"
    shutil.copytree(models / tiny_lingua.BERT, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=f"tiny .*{says}"):
        graph_of(folder, tmp_path / "cache")


def test_weights_without_a_classifier_and_damaged_tokenizers_are_reported(models: Path, tmp_path: Path):
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "damaged"
    shutil.copytree(models / tiny_lingua.BERT, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelNotFoundError, match=r"lacks the weight .*classifier\.weight"):
        graph_of(folder, tmp_path / "cache")

    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match=r"the tokenizer in .* is damaged"):
        graph_of(folder, tmp_path / "cache")
