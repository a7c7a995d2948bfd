from __future__ import annotations

import numpy as np
import pytest

from evals.answer_measures import contains_answer, detection, mean_estimate, merge, normalise, score_citations


def test_texts_are_normalised_as_in_squad() -> None:
    assert normalise("The  Panthers' defense, a legend!") == "panthers defense legend"
    assert normalise("“Kawann Short”") == "kawann short"


def test_chinese_is_compared_without_spaces_and_numbers_keep_theirs() -> None:
    assert normalise("卡万·肖特 以 11 分，领先") == "卡万肖特以11分领先"
    assert normalise("in 24 games") == "in 24 games"


@pytest.mark.parametrize(
    ("text", "gold", "expected"),
    [
        ("The Panthers gave up just 308 points.", ["308"], True),
        ("They gave up 1308 points.", ["308"], False),
        ("a cathedral", ["hedra"], False),
        ("It was Kawann-Short, 'the' tackle", ["Kawann Short", "short the tackle", "KawannShort"], True),
        ("以 11 分领先", ["11分"], True),
        ("共有136次擒杀", ["136 次"], True),
        ("anything", ["the"], False),
        ("", ["308"], False),
    ],
)
def test_an_answer_is_found_at_word_boundaries_only(text, gold, expected) -> None:
    assert contains_answer(text, gold) is expected


def test_spans_that_touch_or_overlap_become_one_and_documents_stay_apart() -> None:
    assert merge([("b", 0, 5), ("a", 4, 9), ("a", 0, 4), ("a", 2, 3), ("a", 11, 12)]) == [
        ("a", 0, 9),
        ("a", 11, 12),
        ("b", 0, 5),
    ]


def test_cited_spans_are_scored_by_characters_and_by_pieces_of_evidence() -> None:
    gold = [("a", 0, 10), ("a", 20, 30), ("b", 0, 10)]
    shares = score_citations([("a", 5, 25), ("a", 5, 25), ("c", 0, 10)], gold)
    assert shares.recall == pytest.approx(10 / 30)
    assert shares.precision == pytest.approx(10 / 30)
    assert shares.units == pytest.approx(2 / 3)  # half of a piece is enough
    assert shares.hits == pytest.approx(2 / 3)


def test_nothing_cited_scores_nought_everywhere() -> None:
    shares = score_citations([], [("a", 0, 10)])
    assert (shares.recall, shares.precision, shares.units, shares.hits) == (0, 0, 0, 0)


def test_detection_has_the_textbook_figures_and_the_constant_answer_beside_them() -> None:
    found = detection(flagged_positives=60, positives=100, flagged_negatives=20, negatives=300)
    assert found.precision.value == pytest.approx(0.75)
    assert found.recall.value == pytest.approx(0.6)
    assert found.f1.value == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    assert found.constant_f1 == pytest.approx(0.4)
    assert found.gain.value == pytest.approx(found.f1.value - 0.4)


def test_the_intervals_of_a_detection_are_those_of_drawing_questions_again() -> None:
    found = detection(flagged_positives=60, positives=100, flagged_negatives=20, negatives=300)
    random = np.random.default_rng(7)
    flagged = np.repeat([True, False], [60, 40]), np.repeat([True, False], [20, 280])
    values = []
    for _ in range(4000):
        hits, alarms = (int(random.choice(group, len(group)).sum()) for group in flagged)
        values.append(2 * hits / (hits + alarms + 100))
    low, high = np.quantile(values, [0.025, 0.975])
    assert found.f1.interval.low == pytest.approx(low, abs=0.01)
    assert found.f1.interval.high == pytest.approx(high, abs=0.01)


def test_a_detector_that_flags_nothing_has_no_precision_and_no_positives_are_no_detection() -> None:
    found = detection(flagged_positives=0, positives=3, flagged_negatives=0, negatives=2)
    assert found.precision is None
    assert (found.recall.value, found.f1.value) == (0, 0)
    assert detection(flagged_positives=0, positives=0, flagged_negatives=1, negatives=2) is None


def test_there_is_no_mean_of_nothing() -> None:
    assert mean_estimate([]) is None
    estimate = mean_estimate([0.0, 1.0, 1.0, 1.0])
    assert estimate.value == 0.75
    assert estimate.interval.low < 0.75 <= estimate.interval.high
