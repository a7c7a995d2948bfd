import random
from dataclasses import replace

import numpy as np
import pytest

from rag.retrieval.diversity import maximal_marginal_relevance, without_duplicates
from rag.types import Candidate, Passage, Ranking

TEXT = "Backups are kept for thirty days and then deleted by the night job that runs at two."


def ranked(*texts: str) -> tuple[Ranking, dict[str, Passage]]:
    """Passages as candidates, the first the best."""
    passage = Passage("", "acme", "manual", "doc", "v1", 0, 0, 0, "", "Title")
    passages = {str(i): replace(passage, id=str(i), text=text) for i, text in enumerate(texts)}
    return tuple(Candidate(key, "doc", 1 / (rank + 1)) for rank, key in enumerate(passages)), passages


def kept(similarity: float, *texts: str) -> list[int]:
    candidates, passages = ranked(*texts)
    return [int(c.passage_id) for c in without_duplicates(candidates, passages, similarity=similarity)]


def test_of_near_duplicates_the_best_stays():
    other = "The moon causes the tides, and the sun helps a little when both are in line."
    assert kept(0.8, TEXT, other, TEXT.replace("two", "three"), TEXT.upper()) == [0, 1]


def test_at_one_only_the_same_words_are_the_same():
    assert kept(1.0, TEXT, TEXT + " Always.", f"  {TEXT}\n") == [0, 1]


def test_likeness_is_the_share_of_common_shingles():
    # Of 2 and 3 shingles 2 are shared.
    assert kept(2 / 3, "a b c d", "a b c d e") == [0]
    assert kept(0.67, "a b c d", "a b c d e") == [0, 1]


def test_short_and_empty_texts_are_compared_too():
    assert kept(0.9, "", " ", "yes", "Yes.", "no") == [0, 2, 4]


def test_two_languages_without_spaces_are_not_the_same():
    assert kept(0.9, "备份保留三十天。", "月亮引起潮汐。") == [0, 1]


def unit(*rows: tuple[float, float]) -> np.ndarray:
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_diverse_choice_leaves_out_what_is_like_the_best():
    candidates, _ = ranked("a", "b", "c")
    vectors = unit((1, 0), (1, 0.01), (0, 1))
    assert [c.passage_id for c in maximal_marginal_relevance(candidates, vectors, diversity=0.7, k=2)] == ["0", "2"]
    assert maximal_marginal_relevance(candidates, vectors, diversity=0, k=2) == candidates[:2]


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.8, 1.0])
def test_the_choice_is_that_of_the_definition(diversity):
    generator = random.Random(5)
    candidates, _ = ranked(*"abcdefghij")
    vectors = unit(*[(generator.uniform(-1, 1), generator.uniform(-1, 1)) for _ in candidates])
    scores = [c.score for c in candidates]
    relevance = [(s - scores[-1]) / (scores[0] - scores[-1]) for s in scores]
    chosen: list[int] = []
    while len(chosen) < 6:
        left = [i for i in range(len(candidates)) if i not in chosen]
        chosen.append(
            max(
                left,
                key=lambda i: (
                    (1 - diversity) * relevance[i]
                    - diversity * max((float(vectors[i] @ vectors[j]) for j in chosen), default=0)
                ),
            )
        )
    found = maximal_marginal_relevance(candidates, vectors, diversity=diversity, k=6)
    assert [int(c.passage_id) for c in found] == sorted(chosen)


def test_no_more_are_chosen_than_there_are():
    candidates, _ = ranked("a", "b")
    assert maximal_marginal_relevance(candidates, unit((1, 0), (0, 1)), diversity=0.5, k=9) == candidates


def test_what_differs_in_a_number_is_no_duplicate():
    text = "In 2023 the fee was 500 euros and was paid by every member of the association at the end of the year."
    assert kept(0.5, text, text.replace("2023", "2024").replace("500", "900"), text) == [0, 1]
