import pytest

from ingest.load.front_matter import split_front_matter


def test_scalars_and_lists_become_values():
    values, text = split_front_matter(
        "---\n"
        'title: "A: b"   \n'
        "author: 'O''Neill'\n"
        "# a comment\n"
        "count: 3\n"
        "share: 0.25\n"
        "draft: true\n"
        "date: 2024-01-02\n"
        "url: https://example.org/a # where\n"
        "tags: [one, \"two, three\", 'four']\n"
        "topics:\n"
        "  - x\n"
        "  - y: nested\n"
        "languages:\n"
        "- en\n"
        "- de\n"
        "---\n\nText\n"
    )
    assert values == {
        "title": "A: b",
        "author": "O'Neill",
        "count": 3,
        "share": 0.25,
        "draft": True,
        "date": "2024-01-02",
        "url": "https://example.org/a",
        "tags": ["one", "two, three", "four"],
        "topics": ["x"],
        "languages": ["en", "de"],
    }
    assert text == "Text\n"


def test_a_number_that_would_not_read_back_stays_as_it_was_written():
    assert split_front_matter("---\nversion: 1.10\nid: 007\n---\n")[0] == {"version": "1.10", "id": "007"}


def test_nested_and_block_values_are_left_out():
    values, text = split_front_matter(
        "---\nsummary: >\n  folded: text\nmap:\n  a: 1\nempty:\nnothing: null\nkept: 1\n...\nx"
    )
    assert values == {"kept": 1}
    assert text == "x"


@pytest.mark.parametrize(
    "text",
    [
        "---\nA paragraph between rules.\n---\nmore\n",
        "---\nkey: value\nnever closed\n",
        "---\nkey: value\n",
        "text\n---\nkey: value\n---\n",
        "---- \nkey: value\n---\n",
        "",
    ],
)
def test_what_is_no_front_matter_stays_in_the_text(text):
    assert split_front_matter(text) == ({}, text)
