import pytest

from ingest.load.markdown import load
from rag.types import Heading


def headings(source: str) -> list[tuple[int, str]]:
    extracted = load(source.encode())
    for heading in extracted.headings:
        assert extracted.text[: heading.start].endswith("\n") or heading.start == 0
    return [(heading.level, heading.text) for heading in extracted.headings]


def test_the_source_is_the_text_and_offsets_are_of_code_points():
    source = "# Ünï 𝄞\n\nText *stays* [as](it) is.\n\nSub\n---\n"
    extracted = load(source.encode())
    assert extracted.text == source
    assert extracted.headings == (Heading(0, 1, "Ünï 𝄞"), Heading(source.index("Sub"), 2, "Sub"))
    assert extracted.title == "Ünï 𝄞"
    assert extracted.media_type == "text/markdown"


def test_front_matter_is_metadata_and_no_text():
    extracted = load(b"---\r\ntitle: Real title\r\nowner: ops\r\n---\r\n\r\n# Other\r\n")
    assert extracted.text == "# Other\n"
    assert extracted.title == "Real title"
    assert extracted.metadata == {"owner": "ops"}
    assert extracted.headings == (Heading(0, 1, "Other"),)


def test_without_a_level_1_heading_there_is_no_title():
    assert load(b"## Second level\n\ntext").title is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("### Three ###", [(3, "Three")]),
        ("   ## Indented", [(2, "Indented")]),
        ("# C#", [(1, "C#")]),
        ("#\tTab", [(1, "Tab")]),
        ("# a **b** _c_ ~~d~~ `e_f_`", [(1, "a b c d e_f_")]),
        ("# [![logo](x.png) Name](https://x.org) <b>&amp;</b> more", [(1, "logo Name & more")]),
        (r"# 2 \* 3 snake_case_name", [(1, "2 * 3 snake_case_name")]),
        ("# Note[^1] {#anchor}", [(1, "Note")]),
        ("Title\nof two lines\n===", [(1, "Title of two lines")]),
        ("para\n\nTitle\n-", [(2, "Title")]),
        ("#hashtag", []),
        ("####### seven", []),
        ("    # code", []),
        ("#", []),
        ("- item\n---", []),
        ("text\n- item\n---", []),
        ("> quote\n---", []),
        ("| a | b |\n---", []),
        ("para\n\n---\n\nmore", []),
        ("x " * 400 + "\n---", []),
    ],
)
def test_headings_are_those_of_commonmark(source, expected):
    assert headings(source) == expected


@pytest.mark.parametrize("fence", ["```", "~~~~", "  ```python"])
def test_headings_in_fenced_code_are_code(fence):
    closing = fence.strip().rstrip("python")
    assert headings(f"# One\n{fence}\n# code\n## code\n{closing}\n## Two\n") == [(1, "One"), (2, "Two")]


def test_a_shorter_fence_does_not_close_a_longer_one():
    assert headings("````\n```\n# code\n```\n````\n# After\n") == [(1, "After")]


def test_inline_code_of_three_back_quotes_opens_no_fence():
    assert headings("```x``` is code\n# After\n") == [(1, "After")]


def test_comments_are_removed_but_not_from_code():
    source = "a<!-- x -->b <!--\n# gone\n-->c\n\n```\n<!-- kept -->\n```\n`<!-- kept -->` <!-- gone -->end\n"
    extracted = load(f"{source}<!-- open\n# Here\n".encode())
    assert extracted.text == "ab c\n\n```\n<!-- kept -->\n```\n`<!-- kept -->` end\n<!-- open\n# Here\n"
    assert extracted.headings == (Heading(extracted.text.index("# Here"), 1, "Here"),)


def test_a_fence_inside_a_comment_is_gone_with_it():
    assert headings("<!--\n```\n-->\n# Shown\n") == [(1, "Shown")]
