import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rag.adapters.extractive_compressor import GAP, ExtractiveCompressor
from rag.adapters.sentence_scores import bm25_scores, min_max
from rag.tokens import count_tokens
from rag.types import Source
from tests.fake_store import HashEmbedder
from tests.models_cache import exported_minilm, minilm

TIDES = (
    "The moon causes the tides of the sea. It does so by its mass. Sailors have long known the hours of high water. "
    "Harbours print them in tables. The sun helps the moon a little."
)
WINE = (
    "Wine ferments in steel tanks for some weeks. Oak barrels come later in its life. Corks are cut from bark. "
    "Bottles lie in cellars for years. Nobody drinks all of them."
)
TABLE = (
    "# Opening hours\n\nThe table says when.\n\n| day | opens | closes |\n|-|-|-|\n"
    "| Monday | nine | five |\n| Tuesday | ten | four |\n| Sunday | never | never |\n\nRing the bell if nobody comes."
)
CODE = (
    "Backups run at night. Nobody has to be there.\n\n```sh\nrag backup --all\n# weekly\nrag prune --keep 4\n```\n\n"
    "The prune command deletes what is old. Ask before you run it."
)


def source(text: str, *, number: int = 1, title: str = "Notes", start: int = 0) -> Source:
    return Source(
        number=number,
        document_id=f"doc-{number}",
        version="v1",
        title=title,
        headings=(),
        start=start,
        end=start + len(text),
        text=text,
        score=1 / number,
        passage_ids=(f"p-{number}",),
    )


async def compressed(question: str, *sources: Source, target_tokens: int) -> Sequence[Source]:
    shown = await ExtractiveCompressor(HashEmbedder(256)).compress(question, sources, target_tokens=target_tokens)
    by_number = {each.number: each for each in sources}
    for each in shown:
        assert replace(each, kept=(), gap=by_number[each.number].gap) == by_number[each.number]
        ends = [each.start - 1]
        for start, end in each.kept:
            assert ends[-1] < start < end <= each.end
            part = each.text[start - each.start : end - each.start]
            assert part == part.strip()
            assert part in each.shown
            ends.append(end)
    assert [each.number for each in shown] == sorted(each.number for each in shown)
    return shown


def tokens(sources: Sequence[Source]) -> int:
    return sum(count_tokens(each.shown) for each in sources)


async def test_the_sentence_that_answers_is_kept_and_the_rest_is_not():
    (shown,) = await compressed("Do corks come from bark?", source(TIDES), source(WINE, number=2), target_tokens=7)
    assert shown.shown == "Corks are cut from bark."
    assert shown.number == 2


async def test_kept_spans_are_offsets_of_the_document():
    (shown,) = await compressed("What are corks cut from?", source(WINE, start=5000), target_tokens=7)
    ((start, end),) = shown.kept
    assert start == 5000 + WINE.index("Corks")
    assert WINE[start - 5000 : end - 5000] == "Corks are cut from bark."
    assert (shown.start, shown.end, shown.text) == (5000, 5000 + len(WINE), WINE)


async def test_what_fits_comes_back_as_it_is():
    sources = source(TIDES), source(WINE, number=2)
    assert await compressed("What causes the tides?", *sources, target_tokens=tokens(sources)) == sources


async def test_a_source_that_is_kept_whole_says_so():
    short = source("The moon causes the tides.", number=2)
    shown = await compressed("What causes the tides, the moon?", source(WINE), short, target_tokens=12)
    assert short in shown


async def test_adjacent_sentences_are_one_span_with_the_white_space_between_them():
    text = "The moon causes tides.\n\nMoon tides are high.   Oak is a wood. Bark is a skin. Cork is light. So is air."
    (shown,) = await compressed("moon tides", source(text, start=70), target_tokens=10)
    assert shown.kept == ((70, 70 + text.index("   Oak")),)
    assert shown.shown == "The moon causes tides.\n\nMoon tides are high."


async def test_a_gap_costs_one_token_and_counts():
    assert count_tokens(GAP) == 1
    text = "Moon tides rise here. Oak is a wood of ships. Bark is a skin. Cork is light. Moon tides fall there."
    (shown,) = await compressed("moon tides", source(text, start=9), target_tokens=11)
    assert shown.shown == f"Moon tides rise here.{GAP}Moon tides fall there."
    assert tokens([shown]) == 11
    (shown,) = await compressed("moon tides", source(text, start=9), target_tokens=9)
    assert len(shown.kept) == 1


@pytest.mark.parametrize("target_tokens", [1, 5, 20, 40, 60, 80, 100])
async def test_the_budget_holds_wherever_a_part_fits_into_it(target_tokens):
    sources = source(TIDES), source(WINE, number=2), source(CODE, number=3), source(TABLE, number=4)
    shown = await compressed("Which command prunes backups?", *sources, target_tokens=target_tokens)
    assert shown
    assert tokens(shown) <= max(target_tokens, 20)
    assert target_tokens < 5 or tokens(shown) <= target_tokens
    assert target_tokens < 20 or tokens(shown) >= 0.7 * target_tokens


async def test_the_budget_holds_on_random_sources():
    generator = random.Random(3)
    words = [
        "moon",
        "tides",
        "sea.",
        "Oak",
        "bark.",
        "\n\n",
        "| a | b |\n",
        "|---|---|\n",
        "```\n",
        "# Head\n",
        "海。",
        "?",
    ]
    for _ in range(150):
        texts = [" ".join(generator.choices(words, k=generator.randint(1, 80))) for _ in range(4)]
        sources = [source(text, number=n, start=generator.choice([0, 7])) for n, text in enumerate(texts, start=1)]
        target = generator.randint(30, 150)
        shown = await compressed("moon tides of the sea", *sources, target_tokens=target)
        assert shown
        longest = max(count_tokens(text) for text in texts)
        assert tokens(shown) <= target or (tokens(shown) <= longest and len(shown) == 1)


async def test_one_giant_sentence_is_kept_whole_where_there_is_nothing_else():
    giant = source("the moon and the tides and " * 200 + "the sea.")
    (shown,) = await compressed("What of the moon?", giant, target_tokens=50)
    assert shown.shown == giant.text


async def test_a_giant_sentence_gives_way_to_what_fits():
    giant = source("the moon and the tides and " * 200 + "the sea. ", number=1)
    shown = await compressed("What of the moon?", giant, source(TIDES, number=2), target_tokens=50)
    assert 0 < tokens(shown) <= 50


async def test_rows_of_a_table_come_with_its_head():
    (shown,) = await compressed("When does it open on Tuesday?", source(TABLE, start=3), target_tokens=27)
    assert "| day | opens | closes |" in shown.shown
    assert "|-|-|-|" in shown.shown
    assert "| Tuesday | ten | four |" in shown.shown
    assert "Sunday" not in shown.shown


async def test_a_heading_comes_with_what_follows_it_and_never_alone():
    text = "# Wine\n\nIt ferments in tanks.\n\n## Tides of the sea\n\nThe moon is at work.\n\nCorks are cut."
    (shown,) = await compressed("What about the tides of the sea?", source(text, start=1), target_tokens=13)
    assert shown.shown == "## Tides of the sea\n\nThe moon is at work."


async def test_code_is_kept_whole_or_not_at_all():
    code = CODE[CODE.index("```sh") : CODE.rindex("```") + 3]
    (shown,) = await compressed("How does rag prune keep 4 weekly?", source(CODE), target_tokens=28)
    assert code in shown.shown
    (shown,) = await compressed("How does rag prune keep 4 weekly?", source(CODE), target_tokens=15)
    assert "```" not in shown.shown
    assert "rag backup" not in shown.shown


async def test_code_whose_fence_was_left_behind_is_read_line_by_line():
    text = "rag backup --all\n```\n\nThe moon causes the tides.\n\nOak is a wood of ships.\n\nBark is a skin."
    (shown,) = await compressed("What causes the tides?", source(text, start=40), target_tokens=6)
    assert shown.shown == "The moon causes the tides."


async def test_chinese_is_compared_by_its_characters():
    text = "葡萄酒在钢罐中发酵。月亮引起大海的潮汐。橡木桶后来才用。软木塞取自树皮。"
    (shown,) = await compressed("潮汐是什么引起的？", source(text, start=2), target_tokens=11)
    assert shown.shown == "月亮引起大海的潮汐。"


async def test_a_question_leads_from_one_document_to_the_next():
    """The second step shares no word with the question; the first names the document that it is in."""
    song = source("The song Lonely was covered by Blue Harbour in 2012.", title="Lonely", start=90)
    met = "Its members met in Tulsa as children of farmers. Rain fell on them."
    red = source(met, number=2, title="Red Harbour (band)")
    blue = source(met, number=3, title="Blue Harbour (band)")
    shown = await compressed("Who covered the song Lonely, and from where?", song, red, blue, target_tokens=22)
    assert [each.number for each in shown] == [1, 3]
    song = source(song.text.replace("Blue Harbour", "Blue Harbours"), title="Lonely", start=90)
    shown = await compressed("Who covered the song Lonely, and from where?", song, red, blue, target_tokens=22)
    assert [each.number for each in shown] == [1, 2]


async def test_equal_inputs_have_equal_outputs():
    twins = [source(TIDES, number=number) for number in (1, 2, 3)]
    first = await compressed("What causes the tides?", *twins, target_tokens=30)
    assert first == await compressed("What causes the tides?", *twins, target_tokens=30)
    assert first[0].number == 1


@pytest.mark.parametrize("question", ["?", "", "of the", "unheard words", "月"])
async def test_any_question_keeps_something(question):
    assert await compressed(question, source(TIDES), source(WINE, number=2), target_tokens=20)


async def test_a_source_of_white_space_is_left_out():
    shown = await compressed("What causes the tides?", source("  \n "), source(TIDES, number=2), target_tokens=20)
    assert [each.number for each in shown] == [2]


async def test_the_packaged_model_finds_a_paraphrase(tmp_path_factory):
    embedder = minilm(exported_minilm(tmp_path_factory))
    sources = (
        source("Oak is a wood of ships. " + WINE, start=4),
        source("Cats sleep most of the day. The physician prescribed pills. Rain fell.", number=2, start=4),
    )
    (shown,) = await ExtractiveCompressor(embedder).compress(
        "Which medication did the doctor give?", sources, target_tokens=6
    )
    assert shown.shown == "The physician prescribed pills."
    await embedder.close()


def test_bm25_is_that_of_robertson_with_a_lower_bound():
    """BM25+ by hand (Lv and Zhai, 2011): k1 = 1.5, b = 0.75, delta = 1, idf = ln((N + 1) / n)."""
    texts = ["moon moon tide", "oak bark", "moon"]
    lengths, counts = [3, 2, 1], [2, 0, 1]
    raw = [
        math.log(4 / 2) * (1 + count * 2.5 / (1.5 * (0.25 + 0.75 * length / 2) + count))
        for length, count in zip(lengths, counts, strict=True)
    ]
    expected = [(value - min(raw)) / (max(raw) - min(raw)) for value in raw]
    assert bm25_scores("What about the moon?", texts) == pytest.approx(expected)


def test_scores_without_a_difference_are_zero():
    assert bm25_scores("football", ["moon", "tide"]).tolist() == [0, 0]
    assert min_max(bm25_scores("moon", ["moon", "moon"])).tolist() == [0, 0]
