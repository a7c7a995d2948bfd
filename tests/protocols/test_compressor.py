"""What every `Compressor` promises, held against each adapter there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rag.adapters.extractive_compressor import ExtractiveCompressor
from rag.adapters.graph_lingua2 import GraphLingua2
from rag.adapters.llmlingua_compressor import LLMLinguaCompressor
from rag.adapters.model_folder import read_classifier_folder
from rag.context.compression import Compressor
from rag.tokens import count_tokens
from rag.types import Source
from tests.fake_store import HashEmbedder
from tests.rag.adapters import tiny_lingua
from tests.rag.adapters.tiny_lingua import QUESTION, TEXTS, WINE, sources


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_lingua.all_models(tmp_path_factory)


def extractive(_: Path, __: Path) -> Compressor:
    return ExtractiveCompressor(HashEmbedder())


def llmlingua(models: Path, _: Path) -> Compressor:
    return LLMLinguaCompressor(models / tiny_lingua.CAUSAL, "tiny", method="llmlingua")


def longllmlingua(models: Path, _: Path) -> Compressor:
    return LLMLinguaCompressor(models / tiny_lingua.CAUSAL, "tiny", method="longllmlingua")


def llmlingua_2(models: Path, _: Path) -> Compressor:
    return LLMLinguaCompressor(models / tiny_lingua.BERT, "tiny", method="llmlingua-2")


def llmlingua_2_graph(models: Path, cache_dir: Path) -> Compressor:
    folder = read_classifier_folder(models / tiny_lingua.XLM_ROBERTA, "tiny")
    return GraphLingua2(folder, precision="fp32", cache_dir=cache_dir, batch_tokens=2048)


@pytest.fixture(
    scope="module",
    params=[extractive, llmlingua, longllmlingua, llmlingua_2, llmlingua_2_graph],
    ids=lambda make: make.__name__,
)
def compressor(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Compressor:
    make: Callable[[Path, Path], Compressor] = request.param
    return make(models, tmp_path_factory.mktemp("cache"))


TOTAL = sum(map(count_tokens, TEXTS))


@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
async def test_all_sources_together_show_about_the_target(compressor: Compressor, share: float):
    target = round(share * TOTAL)
    kept = await compressor.compress(QUESTION, sources(*TEXTS), target_tokens=target)
    # A compressor that keeps or drops whole sentences cannot do better than one of them.
    sentence = count_tokens(WINE) if compressor.name == "extractive" else 0
    assert sum(count_tokens(source.shown) for source in kept) == pytest.approx(target, abs=max(0.1 * target, sentence))


async def test_sources_stay_as_they_are_but_for_what_is_kept(compressor: Compressor):
    given = sources(*TEXTS)
    kept = await compressor.compress(QUESTION, given, target_tokens=TOTAL // 2)
    by_number = {source.number: source for source in given}
    assert [source.number for source in kept] == sorted({source.number for source in kept})
    for source in kept:
        assert replace(source, kept=(), gap=by_number[source.number].gap) == by_number[source.number]


@pytest.mark.parametrize("share", [0.9, 0.3, 0.05])
async def test_kept_spans_lie_apart_and_in_order_inside_their_source(compressor: Compressor, share: float):
    for source in await compressor.compress(QUESTION, sources(*TEXTS), target_tokens=round(share * TOTAL)):
        edges = [source.start - 1, *(edge for span in source.kept for edge in span), source.end + 1]
        assert edges == sorted(set(edges))


@pytest.mark.parametrize("target_tokens", [1, 5, TOTAL // 2])
async def test_something_is_always_shown_and_no_source_shows_nothing(compressor: Compressor, target_tokens: int):
    kept = await compressor.compress(QUESTION, sources(*TEXTS), target_tokens=target_tokens)
    assert kept
    assert all(source.shown.strip() for source in kept)


async def test_a_context_within_the_target_is_shown_whole(compressor: Compressor):
    kept = await compressor.compress(QUESTION, sources(*TEXTS), target_tokens=TOTAL)
    assert [source.shown for source in kept] == list(TEXTS)


async def test_no_sources_stay_no_sources(compressor: Compressor):
    assert list(await compressor.compress(QUESTION, [], target_tokens=100)) == []


async def test_the_same_question_gets_the_same_words(compressor: Compressor):
    answers: list[list[Source]] = [
        list(await compressor.compress(QUESTION, sources(*TEXTS), target_tokens=TOTAL // 3)) for _ in range(2)
    ]
    assert answers[0] == answers[1]
