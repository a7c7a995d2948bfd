from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from evals.chunking import DEFAULT_CHUNKERS, CachingEmbedder, evaluate_chunkers, parse_chunker, take_budget
from evals.chunking_report import as_json, compare_chunkers, render
from evals.significance import bootstrap_interval
from evals.spans import SpanQuestion, SpanScore, load_span_set, score_spans
from rag.errors import UsageError
from rag.settings import Chunking, Data, Settings
from rag.tokens import count_tokens
from rag.types import Candidate, Passage, Vectors

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data" / "chunking_spans"
DIMENSION = 64


class HashEmbedder:
    """Sums of random vectors, one per word: texts with common words are near each other."""

    identity = "hash"
    dimension = DIMENSION
    max_tokens = None

    def __init__(self) -> None:
        self.passages: list[str] = []

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self._embed(text) for text in texts])

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        self.passages += texts
        return np.stack([self._embed(text) for text in texts])

    async def close(self) -> None:
        pytest.fail("the embedder is not this module's to close")

    def _embed(self, text: str) -> Vectors:
        seeds = [int(hashlib.md5(word.strip(".?").lower().encode()).hexdigest()[:8], 16) for word in text.split()]
        total = sum(np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds)
        return (total / np.linalg.norm(total)).astype(np.float32)


ANIMALS = ("whale", "tram", "otter", "falcon", "beetle", "salmon", "badger", "heron")


def write_set(folder: Path, *, newline: str = "\n") -> Path:
    """One document: a section per animal, of ten sentences, the fourth of which answers the question."""
    (folder / "docs").mkdir(parents=True)
    text, lines = "", []
    for animal in ANIMALS:
        text += f"# {animal.title()}{newline}{newline}"
        for number in range(10):
            sentence = f"The {animal} number {number} has a colour that nobody knows."
            if number == 3:
                sentence = f"Every {animal} weighs {len(text)} stone."
                gold = {"start": len(text), "end": len(text) + len(sentence), "text": sentence}
                question = f"How much does every {animal} weigh in stone?"
                lines.append({"_id": f"q-{animal}", "text": question, "doc": "zoo", "spans": [gold]})
            text += sentence + " "
        text += newline * 2
    (folder / "docs" / "zoo.md").write_text(text, encoding="utf-8", newline="")
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return folder


def question(*spans: tuple[int, int]) -> SpanQuestion:
    return SpanQuestion("q", "What?", "d", spans)


def test_each_gold_character_counts_once_and_a_repeated_one_costs_precision():
    score = score_spans([("d", 0, 10), ("d", 5, 15), ("other", 0, 5)], question((8, 12), (100, 104)))
    assert score == SpanScore(recall=4 / 8, precision=4 / 25, iou=4 / (8 + 15 + 5 - 4))


def test_the_same_offsets_in_another_document_do_not_count():
    assert score_spans([("other", 0, 10)], question((0, 10))) == SpanScore(0, 0, 0)


def test_nothing_retrieved_scores_nought_and_exactly_the_gold_scores_one():
    assert score_spans([], question((3, 5))) == SpanScore(0, 0, 0)
    assert score_spans([("d", 4, 6), ("d", 3, 4)], question((3, 5), (4, 6))) == SpanScore(1, 1, 1)


def test_the_measures_are_those_of_sets_of_characters():
    generator = random.Random(2)
    for _ in range(200):
        spans = [tuple(sorted(generator.sample(range(60), 2))) for _ in range(8)]
        gold, found = spans[:3], [(generator.choice("dx"), *span) for span in spans[3:]]
        wanted = {("d", place) for start, end in gold for place in range(start, end)}
        all_found = [(name, place) for name, start, end in found for place in range(start, end)]
        shared = wanted & set(all_found)
        assert score_spans(found, question(*gold)) == SpanScore(
            recall=pytest.approx(len(shared) / len(wanted)),
            precision=pytest.approx(len(shared) / len(all_found)),
            iou=pytest.approx(len(shared) / len(wanted | set(all_found))),
        )


def passage(name: str, start: int, text: str) -> Passage:
    return Passage(name, "t", "s", "d", "v", 0, start, start + len(text), text, "")


def test_passages_are_taken_until_the_budget_is_full_and_the_last_one_is_cut():
    passages = {"a": passage("a", 0, "one two three. "), "b": passage("b", 15, "four five six.")}
    ranking = (Candidate("b", "d", 2.0), Candidate("a", "d", 1.0))
    assert list(take_budget(ranking, passages, 2)) == [("d", 15, 24)]
    assert list(take_budget(ranking, passages, 4)) == [("d", 15, 29)]
    assert list(take_budget(ranking, passages, 6)) == [("d", 15, 29), ("d", 0, 7)]
    assert list(take_budget(ranking, passages, 99)) == [("d", 15, 29), ("d", 0, 14)]


def test_a_chunker_is_a_strategy_with_the_sizes_that_differ():
    base = Chunking(max_tokens=70, sentences=2)
    assert parse_chunker("recursive:overlap_tokens=0", base) == Chunking(
        strategy="recursive", max_tokens=70, sentences=2, overlap_tokens=0
    )
    for text in DEFAULT_CHUNKERS:
        parse_chunker(text, base)


@pytest.mark.parametrize("text", ["recursiv", "recursive:size=3", "recursive:max_tokens=0", "recursive:max_tokens"])
def test_an_unknown_chunker_or_size_is_refused(text):
    with pytest.raises(UsageError, match=r"chunker '.*recursive:max_tokens=200:overlap_tokens=0"):
        parse_chunker(text, Chunking())


async def test_no_text_is_embedded_twice():
    embedder = HashEmbedder()
    caching = CachingEmbedder(embedder)
    vectors = await caching.embed_passages(["one", "two", "one"])
    again = await caching.embed_passages(["two", "three"])
    assert embedder.passages == ["one", "two", "three"]
    assert np.array_equal(vectors[0], vectors[2])
    assert np.array_equal(vectors[1], again[0])
    assert caching.asked_tokens == 5


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=Data(dir=tmp_path / "data"))


CHUNKERS = (
    Chunking(strategy="sentence-window", sentences=1),
    Chunking(strategy="sentence-window", sentences=10),
    Chunking(strategy="semantic", buffer_sentences=1, max_tokens=60, min_tokens=10),
)


async def test_small_passages_find_a_sentence_with_fewer_tokens_than_large_ones(tmp_path, settings):
    span_set = load_span_set(write_set(tmp_path / "zoo"))
    one, ten, semantic = await evaluate_chunkers(span_set, settings, HashEmbedder(), CHUNKERS, budgets=(8, 40, 2000))
    assert one.passages == 8 * 10
    assert ten.passages == 8
    assert [score.recall for score in one.scores[40]] == [1.0] * 8
    assert all(score.recall == 0 for score in ten.scores[8])
    for result in (one, ten, semantic):
        assert [score.recall for score in result.scores[2000]] == [1.0] * 8
    assert all(score.iou > 10 * late.iou for score, late in zip(one.scores[8], one.scores[2000], strict=True))
    # What is embedded: each passage with its heading, and for semantic chunking the sentences before.
    tokens = count_tokens(span_set.documents[0].text)
    assert ten.embedded_tokens > tokens
    assert semantic.embedded_tokens > 2.5 * tokens


async def test_headings_are_embedded_with_each_passage_unless_left_out(tmp_path, settings):
    span_set = load_span_set(write_set(tmp_path / "zoo"))
    with_headings, without = HashEmbedder(), HashEmbedder()
    await evaluate_chunkers(span_set, settings, with_headings, CHUNKERS[:1])
    await evaluate_chunkers(span_set, settings, without, CHUNKERS[:1], with_headings=False)
    assert any(text.startswith("Whale\nOtter\nThe otter number 5") for text in with_headings.passages)
    assert any(text.startswith("The otter number 5") for text in without.passages)


async def test_the_same_sizes_are_scored_once_and_progress_names_them(tmp_path, settings):
    told: list[str] = []
    results = await evaluate_chunkers(
        load_span_set(write_set(tmp_path / "zoo")),
        settings,
        HashEmbedder(),
        [CHUNKERS[0], Chunking(strategy="sentence-window", sentences=1, overlap_tokens=3)],
        notify=told.append,
    )
    assert told == ["1/1 sentence-window:sentences=1:max_tokens=200"]
    assert [result.chunker for result in results] == ["sentence-window:sentences=1:max_tokens=200"]


async def test_means_have_intervals_and_are_compared_with_the_first_by_question(tmp_path, settings):
    span_set = load_span_set(write_set(tmp_path / "zoo"))
    results = await evaluate_chunkers(span_set, settings, HashEmbedder(), CHUNKERS[:2], budgets=(20, 40))
    rows = compare_chunkers(results)
    own = [score.recall for score in results[1].scores[20]]
    other = [score.recall for score in results[0].scores[20]]
    estimate = rows[1].estimates["recall"][20]
    assert estimate.mean == pytest.approx(np.mean(own))
    assert estimate.difference == pytest.approx(np.mean(own) - np.mean(other))
    assert estimate.difference_interval == bootstrap_interval(other, own)
    assert estimate.mark == "-"
    assert rows[0].estimates["recall"][20].mark == ""
    report = as_json(span_set, rows)
    assert report["compared_with"] == report["chunkers"][0]["chunker"] == "sentence-window:sentences=1:max_tokens=200"
    assert report["chunkers"][1]["recall"]["20"]["difference"] == pytest.approx(estimate.difference, abs=1e-4)
    assert set(report["chunkers"][1]["iou"]) == {"20", "40"}
    output = io.StringIO()
    render(span_set, rows, Console(file=output, width=80))
    shown = output.getvalue()
    assert "recall on zoo: 8 questions" in shown
    assert f"{estimate.mean:.3f}".removeprefix("0") in shown
    assert "…" not in shown


def test_offsets_count_carriage_returns(tmp_path):
    span_set = load_span_set(write_set(tmp_path / "zoo", newline="\r\n"))
    (document,) = span_set.documents
    for each in span_set.questions:
        ((start, end),) = each.spans
        assert document.text[start:end].startswith("Every ")
    # Ingestion turns the line ends into others, so that its headings would stand elsewhere.
    assert span_set.without_structure == ("zoo",)
    assert document.headings == ()


def test_headings_are_read_where_the_text_stays_the_same(tmp_path):
    span_set = load_span_set(write_set(tmp_path / "zoo"))
    assert span_set.without_structure == ()
    assert [heading.text for heading in span_set.documents[0].headings] == [animal.title() for animal in ANIMALS]


GOLD = {"_id": "q", "text": "What?", "doc": "zoo", "spans": [{"start": 0, "end": 3}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doc": "ark"}, "line 2: there is no document ark in docs/; known are zoo"),
        ({"spans": []}, "line 2: spans: "),
        ({"spans": [{"start": 5, "end": 5}]}, "line 2: the span 5 to 5 does not lie in zoo"),
        ({"spans": [{"start": 0, "end": 10**6}]}, "does not lie in zoo"),
        ({"spans": [{"start": 0, "end": 3, "text": "abc"}]}, "line 2: zoo does not say 'abc' at 0"),
        ({"_id": "first"}, "line 2: the _id first stands a second time"),
    ],
)
def test_a_faulty_question_is_refused_by_its_line(tmp_path, change, message):
    folder = write_set(tmp_path / "zoo")
    lines = [json.dumps({**GOLD, "_id": "first"}), json.dumps({**GOLD, **change})]
    (folder / "questions.jsonl").write_text("\n".join(lines))
    with pytest.raises(UsageError) as raised:
        load_span_set(folder)
    assert message in str(raised.value)


def test_a_folder_without_documents_or_questions_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no documents; put them into docs/"):
        load_span_set(tmp_path)
    folder = write_set(tmp_path / "zoo")
    (folder / "questions.jsonl").write_text("")
    with pytest.raises(UsageError, match="holds no question"):
        load_span_set(folder)
    (folder / "docs" / "zoo.txt").write_text("Another.")
    with pytest.raises(UsageError, match="two documents zoo"):
        load_span_set(folder)


def test_the_labels_of_the_shared_set_are_those_of_its_documents():
    if not SHARED.exists():
        pytest.skip("../shared/data/chunking_spans is absent")
    span_set = load_span_set(SHARED)
    assert len(span_set.questions) == 472
    assert sum(len(each.spans) for each in span_set.questions) == 790
    assert span_set.without_structure == ()


def test_the_command_prints_one_object_and_its_progress_beside_it(tmp_path, monkeypatch):
    from evals.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rag.models.build_embedder", lambda settings, notify: HashEmbedder())
    folder = write_set(tmp_path / "zoo")
    ran = CliRunner().invoke(
        app, ["chunking", str(folder), "--chunker", "fixed:max_tokens=50", "--budget", "30", "--json"]
    )
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert [chunker["chunker"] for chunker in report["chunkers"]] == [
        "sentence-window:sentences=6:max_tokens=200",
        "fixed:max_tokens=50:overlap_tokens=40",
    ]
    assert list(report["chunkers"][0]["recall"]) == ["30"]
    assert "2/2 fixed:max_tokens=50:overlap_tokens=40" in ran.stderr
