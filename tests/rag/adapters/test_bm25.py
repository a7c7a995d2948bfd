import asyncio
import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rank_bm25 import BM25Okapi

from rag.adapters.bm25 import Bm25Encoder, language_of, lexical_identity, term_counts
from rag.adapters.qdrant_edge import QdrantEdgeStore
from rag.errors import ConfigurationError
from rag.retrieval.store import CollectionSpec, IndexedPassage, PassageStore, Query, passage_id
from rag.types import Passage
from tests.fake_store import InMemoryStore

WORDS = "tide moon sea sun wine oak steel tank beer malt hop yeast the of and in".split()


def plain(*, k1: float = 1.2, b: float = 0.75, average_length: float = 4) -> Bm25Encoder:
    """Neither stemmer nor stop words."""
    return Bm25Encoder(language="none", k1=k1, b=b, average_length=average_length)


def weights(encoder: Bm25Encoder, text: str) -> dict[int, float]:
    (vector,) = encoder.encode_passages([text])
    assert len(set(vector.indices)) == len(vector.indices) == len(vector.values)
    return dict(zip(vector.indices, vector.values, strict=True))


def term(encoder: Bm25Encoder, word: str) -> int:
    (index,) = encoder.encode_query(word).indices
    return index


@pytest.mark.parametrize(("k1", "b", "average_length"), [(1.2, 0.75, 4), (0.9, 0.4, 6.5), (2, 0, 1), (0.5, 1, 12)])
def test_a_weight_is_the_saturated_and_normalised_frequency(k1, b, average_length):
    encoder = plain(k1=k1, b=b, average_length=average_length)
    text = "moon moon moon tide tide sea"
    expected = {
        term(encoder, word): tf * (k1 + 1) / (tf + k1 * (1 - b + b * 6 / average_length))
        for word, tf in Counter(text.split()).items()
    }
    assert weights(encoder, text) == pytest.approx(expected, rel=1e-6)


def test_without_saturation_every_word_that_occurs_weighs_one():
    assert set(weights(plain(k1=0), "moon moon tide").values()) == {1}


def test_a_query_holds_each_term_once_with_weight_one():
    encoder = plain()
    vector = encoder.encode_query("Moon tide, moon! MOON")
    assert set(vector.indices) == {term(encoder, "moon"), term(encoder, "tide")}
    assert vector.values == (1, 1)


@pytest.mark.parametrize("text", ["", "  \n", "?!", "—"])
def test_a_text_without_words_is_an_empty_vector(text):
    encoder = plain()
    assert encoder.encode_query(text).indices == ()
    assert weights(encoder, text) == {}


def test_stop_words_do_not_count_and_are_asked_for_only_where_there_is_nothing_else():
    english = Bm25Encoder(language="english", k1=1.2, b=0.75, average_length=4)
    (moon, sea) = english.encode_query("the moon is in the sea").indices
    assert {moon, sea} == {term(english, "moon"), term(english, "sea")}
    assert len(english.encode_query("To be or not to be").indices) == 4
    assert len(plain().encode_query("the moon is in the sea").indices) == 5
    with_them, without = weights(english, "The moon is in the sea"), weights(english, "moon sea")
    assert {index: with_them[index] for index in (moon, sea)} == without
    assert set(english.encode_query("is the in").indices) == with_them.keys() - without.keys()


def test_terms_in_quotation_marks_weigh_as_set():
    encoder = Bm25Encoder(language="english", k1=1.2, b=0.75, average_length=4, phrase_weight=3)
    vector = encoder.encode_query('moon "full moon" tide')
    found = dict(zip(vector.indices, vector.values, strict=True))
    assert found == {term(encoder, "moon"): 3, term(encoder, "full"): 3, term(encoder, "tide"): 1}


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("english", ["connect", "connected", "connecting", "connections"]),
        ("german", ["häuser", "häusern"]),
        ("german", ["Größe", "grösse", "GROESSE"]),
        ("french", ["chanter", "chantera", "chantez"]),
        ("spanish", ["canción", "cancion", "canciones"]),
        ("russian", ["книга", "книгами"]),
    ],
)
def test_words_of_one_stem_are_one_term(language, words):
    stemming = Bm25Encoder(language=language, k1=1.2, b=0.75, average_length=4)
    assert len({term(stemming, word) for word in words}) == 1
    assert len({term(plain(), word) for word in words}) > 1


def test_case_and_marks_do_not_matter():
    encoder = plain()
    assert weights(encoder, "Moon, (Tide): MOON!") == weights(encoder, "moon tide moon")


@pytest.mark.parametrize("language", ["klingon", "", "English ", "en_US"])
def test_an_unknown_language_is_refused_with_its_setting(language):
    with pytest.raises(ConfigurationError, match=re.escape(f"lexical.language = {language!r}: ")):
        Bm25Encoder(language=language, k1=1.2, b=0.75, average_length=4)
    with pytest.raises(ConfigurationError, match=re.escape(repr(language))):
        term_counts(["text"], language=language)


def test_terms_are_counted_with_repeats_and_without_stop_words():
    texts = ["the moon the moon the moon", "", "of the", "connect connected connecting", "moon " * 1000]
    assert term_counts(texts, language="english") == [3, 0, 0, 3, 1000]
    assert term_counts(texts, language="none") == [6, 0, 2, 3, 1000]
    assert term_counts([], language="english") == []


def test_counted_lengths_are_those_that_weights_are_normalised_with():
    text = "the moon of the sea moves the tides and the tides move the sea"
    (length,) = term_counts([text], language="english")
    encoder = Bm25Encoder(language="english", k1=1.2, b=1, average_length=length)
    # At exactly the average length normalisation falls away.
    assert weights(encoder, text)[term(encoder, "moon")] == pytest.approx(1)


def test_the_identity_names_language_and_parameters():
    assert plain(k1=1.5, b=0.5).identity == lexical_identity(language="none", k1=1.5, b=0.5)
    identities = [
        lexical_identity(language="english", k1=1.2, b=0.75),
        lexical_identity(language="german", k1=1.2, b=0.75),
        lexical_identity(language="english", k1=1.3, b=0.75),
        lexical_identity(language="english", k1=1.2, b=0.7),
    ]
    assert len(set(identities)) == len(identities)
    assert [language_of(identity) for identity in identities] == ["english", "german", "english", "english"]
    # Collections of another analysis hold other terms.
    assert not any(identity.startswith("qdrant-bm25:") for identity in identities)


def test_indices_are_the_same_in_every_process():
    # Stored in collections: other numbers need another version in the identity.
    assert term(plain(), "moon") == 3823912936


async def test_texts_are_encoded_alike_by_threads_at_the_same_time():
    english = Bm25Encoder(language="english", k1=1.2, b=0.75, average_length=4)
    stems = ["connect", "generat", "relat", "nation"]
    texts = [f"{stem}{number}ing {stem}ional {stem}ions {stem}ed" for number in range(300) for stem in stems]
    expected = english.encode_passages(texts)
    other = Bm25Encoder(language="english", k1=1.2, b=0.75, average_length=4)
    found = await asyncio.gather(*(asyncio.to_thread(other.encode_passages, texts) for _ in range(4)))
    assert found == [expected] * 4


class LuceneOkapi(BM25Okapi):
    """rank_bm25's ranking with Lucene's idf, which is never negative; its own differs for frequent words."""

    def _calc_idf(self, nd):
        self.idf = {word: math.log(1 + (self.corpus_size - n + 0.5) / (n + 0.5)) for word, n in nd.items()}


def make_store(kind: str, folder: Path) -> PassageStore:
    if kind == "in memory":
        return InMemoryStore()
    return QdrantEdgeStore.create(folder / "edge", CollectionSpec("id", "none", 1, "bm25", "none", 4))


@pytest.mark.parametrize("kind", ["in memory", "edge"])
async def test_rankings_equal_those_of_rank_bm25(kind, tmp_path):
    generator = random.Random(17)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(1, 30))) for _ in range(60)]
    reference = LuceneOkapi([text.split() for text in texts], k1=1.2, b=0.75)
    encoder = plain(average_length=reference.avgdl)
    store = make_store(kind, tmp_path)
    passages = [_passage(number, text) for number, text in enumerate(texts)]
    vectors = encoder.encode_passages(texts)
    await store.upsert([IndexedPassage(p, np.ones(1, np.float32), v) for p, v in zip(passages, vectors, strict=True)])
    for length in (1, 2, 3, 5, 8):
        words = generator.sample([*WORDS, "unheard"], k=length)
        scores = dict(zip([p.id for p in passages], reference.get_scores(words), strict=True))
        expected = {i: score for i, score in scores.items() if score > 0}
        query = encoder.encode_query(" ".join(words))
        found = (await store.search(Query("acme", None, query, retrieve_k=100)))["bm25"]
        assert {c.passage_id: c.score for c in found} == pytest.approx(expected, rel=1e-4)
        best = sorted(expected.values(), reverse=True)[:10]
        assert [expected[c.passage_id] for c in found[:10]] == pytest.approx(best, rel=1e-4)
    await store.close()


def _passage(number: int, text: str) -> Passage:
    name = f"doc-{number}"
    return Passage(passage_id("acme", name, "v1", 0), "acme", "s", name, "v1", 0, 0, len(text), text, name)
