import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ingest.chunking.passages import make_passages
from ingest.chunking.sentence_window import chunk
from rag.retrieval.store import IndexedPassage
from rag.retrieval.window import expand
from rag.sentences import sentence_spans
from rag.types import Candidate, Document, Heading, Passage, Source, SparseVector
from tests.fake_store import InMemoryStore

PROSE = (
    "# Title\n\nOne is here. Two  is\nhere! Three is here?  Four is here. Five is here.\n\n\n"
    "Six is here. Seven is here.\n\n## Part\n\nEight is here. Nine is here. Ten is here. Eleven is here.\n"
    "\n- first item\n- second item. It has two sentences.\n\n```\ncode = [1]\nmore()\n```\n"
    "Dr. Who (see Fig. 2) left. The end of it, "
    + "which goes on and on " * 30
    + "comes at last. Gone.\n \t\n"
    + "你好。世界很大。再见！ Last words."
)


class CountingStore(InMemoryStore):
    """Remembers what was fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetches: list[Sequence[str]] = []

    async def fetch(self, tenant: str, passage_ids: Sequence[str]) -> Mapping[str, Passage]:
        self.fetches.append(passage_ids)
        return await super().fetch(tenant, passage_ids)


def document(text: str = PROSE, *, name: str = "doc", version: str = "v1") -> Document:
    headings = [Heading(text.index(line), level, line.strip("# ")) for level, line in _heading_lines(text)]
    return Document(name, version, "manual", "Title", text, headings=tuple(headings))


def _heading_lines(text: str) -> list[tuple[int, str]]:
    return [(len(line) - len(line.lstrip("#")), line) for line in text.splitlines() if line.startswith("#")]


async def stored(
    store: InMemoryStore, document: Document, *, tenant: str = "acme", sentences: int = 2, max_tokens: int = 40
) -> list[Passage]:
    spans = chunk(document, sentences=sentences, max_tokens=max_tokens)
    passages = make_passages(document, tenant=tenant, spans=spans)
    nothing = np.zeros(1, dtype=np.float32), SparseVector((), ())
    await store.upsert([IndexedPassage(passage, *nothing) for passage in passages])
    return passages


async def expanded(
    store: InMemoryStore, hits: Sequence[Passage], *, window_sentences: int, scores: Sequence[float] = ()
) -> list[Source]:
    """The hits' sources; without scores the first hit is the best."""
    scored = scores or [1 / rank for rank in range(1, len(hits) + 1)]
    found = [Candidate(hit.id, hit.document_id, score) for hit, score in zip(hits, scored, strict=True)]
    return await expand(found, {hit.id: hit for hit in hits}, store, window_sentences=window_sentences)


def numbered_sentences(count: int) -> str:
    return " ".join(f"Sentence number {number} stands here." for number in range(count))


@pytest.mark.parametrize("window_sentences", [0, 1, 2, 3, 5, 100])
@pytest.mark.parametrize("sentences", [1, 2, 6])
async def test_a_source_is_the_exact_text_of_its_document(window_sentences, sentences):
    generator = random.Random(window_sentences)
    doc, store = document(), InMemoryStore()
    passages = await stored(store, doc, sentences=sentences)
    for _ in range(20):
        hits = generator.sample(passages, k=generator.randint(1, min(6, len(passages))))
        sources = await expanded(store, hits, window_sentences=window_sentences)
        assert [source.number for source in sources] == list(range(1, len(sources) + 1))
        for source in sources:
            assert doc.text[source.start : source.end] == source.text
        in_place = sorted((source.start, source.end) for source in sources)
        assert all(one[1] < following[0] for one, following in pairwise(in_place))
        for hit in hits:
            assert any(hit.id in s.passage_ids and s.start <= hit.start and hit.end <= s.end for s in sources)


@pytest.mark.parametrize("window_sentences", [1, 2, 4])
async def test_a_window_adds_whole_sentences_on_both_sides(window_sentences):
    doc, store = document(numbered_sentences(15)), InMemoryStore()
    passages = await stored(store, doc, sentences=5)
    (source,) = await expanded(store, [passages[1]], window_sentences=window_sentences)
    spans = sentence_spans(doc.text)
    assert source.start == spans[5 - window_sentences][0]
    assert source.end == spans[9 + window_sentences][1]
    assert source.text.startswith(f"Sentence number {5 - window_sentences} ")


async def test_a_window_reaches_no_further_than_the_neighbouring_passages():
    doc, store = document(numbered_sentences(15)), InMemoryStore()
    passages = await stored(store, doc, sentences=3)
    (source,) = await expanded(store, [passages[2]], window_sentences=100)
    assert source.text == doc.text[passages[1].start : passages[3].end].strip()


@pytest.mark.parametrize(("place", "start", "end"), [(0, 0, 1), (-1, -2, -1)])
async def test_a_window_ends_where_the_document_does(place, start, end):
    doc, store = document(numbered_sentences(9)), InMemoryStore()
    passages = await stored(store, doc, sentences=3)
    (source,) = await expanded(store, [passages[place]], window_sentences=3)
    assert source.text == doc.text[passages[start].start : passages[end].end].strip()


async def test_without_a_window_hits_are_sources_as_they_are_and_nothing_is_fetched():
    doc, store = document(), CountingStore()
    first, _, third, *_ = await stored(store, doc)
    sources = await expanded(store, [third, first], window_sentences=0)
    assert [(s.start, s.end, s.text) for s in sources] == [(p.start, p.end, p.text) for p in (third, first)]
    assert store.fetches == []


@pytest.mark.parametrize("scores", [[0.2, 0.9, 0.5], [0.9, 0.2, 0.5]])
async def test_windows_that_overlap_become_one_with_the_best_score(scores):
    doc, store = document(numbered_sentences(30)), InMemoryStore()
    passages = await stored(store, doc, sentences=3)
    hits = [passages[4], passages[2], passages[8]]
    merged, alone = await expanded(store, hits, window_sentences=2, scores=scores)
    assert merged.passage_ids == (passages[2].id, passages[4].id)
    assert (merged.number, merged.score) == (1, 0.9)
    assert merged.text == doc.text[merged.start : merged.end]
    assert merged.start < passages[2].start < passages[4].end < merged.end
    assert (alone.number, alone.score, alone.passage_ids) == (2, 0.5, (passages[8].id,))


async def test_windows_that_only_share_a_document_stay_apart():
    doc, store = document(numbered_sentences(30)), InMemoryStore()
    passages = await stored(store, doc, sentences=3)
    sources = await expanded(store, [passages[1], passages[8]], window_sentences=1)
    assert [source.passage_ids for source in sources] == [(passages[1].id,), (passages[8].id,)]


async def test_a_hit_inside_the_window_of_another_is_not_a_source_of_its_own():
    doc, store = document(numbered_sentences(9)), InMemoryStore()
    passages = await stored(store, doc, sentences=1)
    sources = await expanded(store, [passages[4], passages[5], passages[3]], window_sentences=1)
    assert [source.passage_ids for source in sources] == [(passages[3].id, passages[4].id, passages[5].id)]


async def test_equal_scores_are_numbered_in_order_of_passage_id():
    store = InMemoryStore()
    hits = [(await stored(store, document("One is here.", name=name)))[0] for name in "abcdef"]
    sources = await expanded(store, hits, window_sentences=2, scores=[0.5] * len(hits))
    assert [source.passage_ids[0] for source in sources] == sorted(hit.id for hit in hits)


async def test_a_source_carries_what_its_passage_says_of_its_place():
    doc, store = replace(document(), page_starts=(0, PROSE.index("Eight"))), InMemoryStore()
    passages = await stored(store, doc)
    hit = next(passage for passage in passages if "Ten is here" in passage.text)
    (source,) = await expanded(store, [hit], window_sentences=0, scores=[0.75])
    assert source == Source(
        number=1,
        document_id="doc",
        version="v1",
        title="Title",
        headings=("Title", "Part"),
        pages=((hit.start, 2),),
        start=hit.start,
        end=hit.end,
        text=hit.text,
        score=0.75,
        passage_ids=(hit.id,),
    )


async def test_a_source_knows_the_rows_of_each_of_its_offsets_and_where_else_it_stands():
    text = "".join(f"name: Ada {number}\n" for number in range(2, 20))
    starts = tuple((offset, row) for row, offset in enumerate(range(0, 11 * 8, 11), start=2))
    doc = replace(document(text), row_starts=starts, also_in=("copy.csv",))
    store = InMemoryStore()
    passages = make_passages(doc, tenant="acme", spans=[(0, 22), (22, 66), (66, len(text))])
    nothing = np.zeros(1, dtype=np.float32), SparseVector((), ())
    await store.upsert([IndexedPassage(passage, *nothing) for passage in passages])
    (source,) = await expanded(store, [passages[1]], window_sentences=9)
    assert source.also_in == ("copy.csv",)
    assert source.start == 0
    assert [source.rows_at(offset) for offset in (0, 21, 22, 65, 66)] == [p.rows for p in passages for _ in "ab"][:5]
    assert [passage.rows for passage in passages[:2]] == [(2, 3), (4, 7)]
    (bare,) = await expanded(store, await stored(store, document(name="prose")), window_sentences=99)
    assert (bare.rows_at(0), bare.also_in) == (None, ())


async def test_neighbours_of_another_version_document_or_tenant_are_never_mixed_in():
    store = InMemoryStore()
    ours = document(numbered_sentences(9))
    (_, hit, _) = await stored(store, ours, sentences=3)
    theirs = ours.text.replace("Sentence", "Sequence")
    await stored(store, document(theirs, version="v2"), sentences=3)
    await stored(store, document(theirs, name="other"), sentences=3)
    await stored(store, document(theirs), tenant="rival", sentences=3)
    (source,) = await expanded(store, [hit], window_sentences=3)
    assert source.text == ours.text
    assert source.version == "v1"


async def test_hits_of_two_versions_are_two_sources():
    store = InMemoryStore()
    old, new = document(numbered_sentences(9)), document(numbered_sentences(12), version="v2")
    hits = [(await stored(store, each, sentences=3))[1] for each in (old, new)]
    sources = await expanded(store, hits, window_sentences=2)
    assert [source.version for source in sources] == ["v1", "v2"]


async def test_a_missing_neighbour_leaves_the_hit_as_it_is():
    doc, store = document(numbered_sentences(9)), InMemoryStore()
    passages = await stored(store, doc, sentences=3)
    del store.points[passages[2].id]
    (source,) = await expanded(store, [passages[1]], window_sentences=2)
    assert source.end == passages[1].end
    assert source.start < passages[1].start
    assert source.text == doc.text[source.start : source.end]


async def test_all_neighbours_come_from_one_batched_fetch_without_the_hits():
    store = CountingStore()
    passages = await stored(store, document(numbered_sentences(30)), sentences=3)
    others = await stored(store, document(numbered_sentences(9), name="other"), sentences=3)
    await expanded(store, [passages[0], passages[4], passages[5], others[1]], window_sentences=1)
    (fetched,) = store.fetches
    wanted = [passages[1], passages[3], passages[6], others[0], others[2]]
    assert sorted(fetched) == sorted(passage.id for passage in wanted)


async def test_nothing_found_is_no_source_and_no_fetch():
    store = CountingStore()
    assert await expanded(store, [], window_sentences=3) == []
    assert store.fetches == []


async def test_a_source_knows_the_page_of_each_of_its_offsets():
    second = PROSE.index("Eight")
    doc, store = replace(document(), page_starts=(0, second)), InMemoryStore()
    passages = await stored(store, doc)
    (source,) = await expanded(store, passages, window_sentences=1)
    assert (source.start, source.page) == (0, 1)
    assert (source.page_at(second - 1), source.page_at(second)) == (1, 2)


def sections(*counts: int) -> str:
    """Headed sections of so many sentences each."""
    return "\n\n".join(
        f"# Part {part}\n\n" + " ".join(f"Part {part} says number {n} here." for n in range(count))
        for part, count in enumerate(counts)
    )


async def in_sections(store: InMemoryStore, hits: Sequence[Passage], *, section_tokens: int) -> list[Source]:
    found = [Candidate(hit.id, hit.document_id, 1 / rank) for rank, hit in enumerate(hits, 1)]
    passages = {hit.id: hit for hit in hits}
    return await expand(found, passages, store, expansion="section", section_tokens=section_tokens)


async def test_a_section_is_the_passages_under_the_same_headings():
    doc, store = document(sections(4, 8, 4)), CountingStore()
    passages = await stored(store, doc, sentences=2)
    own = [passage for passage in passages if passage.headings == ("Part 1",)]
    (source,) = await in_sections(store, [own[1]], section_tokens=1000)
    assert (source.start, source.end) == (own[0].start, own[-1].end)
    assert source.text == doc.text[source.start : source.end]
    assert source.passage_ids == (own[1].id,)
    assert len(store.fetches) == 1


@pytest.mark.parametrize(("section_tokens", "before", "after"), [(14, 0, 0), (28, 1, 0), (42, 1, 1), (56, 2, 1)])
async def test_a_section_reaches_as_far_as_its_tokens(section_tokens, before, after):
    doc, store = document("# Part 0\n\n" + sections(16).partition("\n\n")[2]), InMemoryStore()
    passages = await stored(store, doc, sentences=2)
    (source,) = await in_sections(store, [passages[4]], section_tokens=section_tokens)
    assert (source.start, source.end) == (passages[4 - before].start, passages[4 + after].end)


@pytest.mark.parametrize("hit", [0, 1, 2, 3])
async def test_a_section_ends_where_text_between_passages_is_not_known(hit):
    doc, store = document("Alpha one.\nBeta two.\n\n\nGamma three.\nDelta four."), InMemoryStore()
    starts = [doc.text.index(word) for word in ("Alpha", "Beta", "Gamma", "Delta")]
    ends = [starts[1], doc.text.index("\n\n"), starts[3], len(doc.text)]
    spans = list(zip(starts, ends, strict=True))
    passages = [
        replace(passage, start=start, end=end, text=doc.text[start:end])
        for passage, (start, end) in zip(make_passages(doc, tenant="acme", spans=spans), spans, strict=True)
    ]
    nothing = np.zeros(1, dtype=np.float32), SparseVector((), ())
    await store.upsert([IndexedPassage(passage, *nothing) for passage in passages])
    (source,) = await in_sections(store, [passages[hit]], section_tokens=1000)
    assert source.text == doc.text[source.start : source.end]
    assert (source.start, source.end) == ((starts[0], ends[1]) if hit < 2 else (starts[2], ends[3]))


async def test_two_hits_of_one_section_are_one_source():
    doc, store = document(sections(8)), InMemoryStore()
    passages = await stored(store, doc, sentences=2)
    (source,) = await in_sections(store, [passages[3], passages[0]], section_tokens=1000)
    assert set(source.passage_ids) == {passages[0].id, passages[3].id}
    assert source.score == 1


async def test_without_expansion_a_hit_stays_as_it_is_and_nothing_is_read():
    doc, store = document(numbered_sentences(15)), CountingStore()
    passages = await stored(store, doc, sentences=3)
    hit = Candidate(passages[2].id, "doc", 1)
    (source,) = await expand([hit], {passages[2].id: passages[2]}, store, expansion="none")
    assert (source.start, source.end, store.fetches) == (passages[2].start, passages[2].end, [])


@pytest.mark.parametrize(("max_tokens", "window"), [(108, 3), (107, 2), (60, 1), (59, 0), (20, 0)])
async def test_the_budget_of_tokens_decides_how_far_windows_reach(max_tokens, window):
    doc, store = document(numbered_sentences(30)), InMemoryStore()
    passages = await stored(store, doc, sentences=3)
    hits = [passages[2], passages[7]]
    found = [Candidate(hit.id, "doc", 1 / rank) for rank, hit in enumerate(hits, 1)]
    sources = await expand(
        found, {p.id: p for p in hits}, store, window_sentences=3, max_tokens=max_tokens, max_sources=2
    )
    expected = await expanded(store, hits, window_sentences=window)
    assert [(s.start, s.end) for s in sources] == [(s.start, s.end) for s in expected]
