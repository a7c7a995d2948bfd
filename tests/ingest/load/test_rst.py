from pathlib import Path

import pytest

from ingest.chunking.sections import heading_spans
from ingest.content import to_document
from ingest.load.detect import extract
from ingest.load.rst import load
from ingest.plan import Group

PUBLISHED = Path(__file__).parents[3].parent / "shared/data/formats/markdown_docs"

SOURCE = """\
:orphan:
:author: Ann

.. a comment
   of two lines

.. |name| replace:: Thing
.. _start:

=====
Guide
=====

Use |name| with :class:`~pkg.Class`, :ref:`the start <start>`, ``*code*``, **bold**
and *soft* words; see start_ or `the site <https://example.org>`_ [1]_.

Install
-------

.. strange-directive:: An argument
   :option: value

   Its content::

       == code ==

.. note:: One
   two.

   - item

.. code-block:: python
   :linenos:

   def f(*args):
       return 1

.. include:: secret.txt
.. raw:: html

   <script>

Deeper
~~~~~~

.. image:: x.png
   :alt: A picture

.. [1] The note.

Next
----

>>> f(*x)
1
"""


def test_a_document_is_what_a_reader_of_its_page_reads():
    extracted = load(SOURCE.encode())
    assert extracted.text.split("\n\n") == [
        "Guide",
        "Use Thing with pkg.Class, the start, *code*, bold\nand soft words; see start or the site [1].",
        "Install",
        "An argument",
        "Its content:",
        "    == code ==",
        "Note: One\ntwo.",
        "- item",
        "def f(*args):\n    return 1",
        "Deeper",
        "A picture",
        "[1] The note.",
        "Next",
        ">>> f(*x)\n1\n",
    ]
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (1, "Guide"),
        (2, "Install"),
        (3, "Deeper"),
        (2, "Next"),
    ]
    for heading in extracted.headings:
        assert extracted.text[heading.start :].startswith(f"{heading.text}\n")
    assert extracted.title == "Guide"
    assert extracted.metadata == {"author": "Ann"}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("+---+---+\n| a | b |\n+===+===+\n| c | d |\n|   | e |\n+---+---+", "a | b\nc | d e"),
        ("===  ===\na    b\n===  ===\nc    d\n     e\n===  ===", "a | b\nc | d e"),
        ("===  ===\nc    d\n===  ===", "c | d"),
        (
            ".. list-table:: T\n   :header-rows: 1\n\n   * - a\n     - b\n   * - c\n     - d\n       e",
            "T\n\na | b\nc | d e",
        ),
    ],
)
def test_tables_are_rows_with_bars(source, expected):
    assert load(f"{source}\n\nafter\n".encode()).text == f"{expected}\n\nafter\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("`text`__ and `x`:emphasis:", "text and x"),
        (":math:`a_b * c * d`", "a_b * c * d"),
        ("call f(*args, **kwargs) in snake_case_", "call f(*args, **kwargs) in snake_case_"),
        (r"\*kept\* re\ *join*\ ed", "*kept* rejoined"),
        ("Text.\n\n:param int x: how many", "Text.\n\nparam int x: how many"),
        ("| line\n| block", "line\nblock"),
        (".. toctree::\n   :caption: Contents\n\n   Start <start>\n   other", "Contents\n\nStart"),
        (".. deprecated:: 2.0\n   Use ``g``.", "Deprecated since version 2.0\nUse g."),
        (".. py:function:: f(a, *b)\n\n   Does it.", "f(a, *b)\n\nDoes it."),
    ],
)
def test_markup_is_reduced_to_its_text(source, expected):
    assert load(source.encode()).text.strip() == expected


def test_what_looks_like_markup_in_code_stays():
    assert load(b"Code::\n\n    Title\n    =====\n\n    .. note:: x\n").text == (
        "Code:\n\n    Title\n    =====\n\n    .. note:: x\n"
    )


def test_deep_nesting_is_read_to_the_end():
    nested = "".join(f"{'   ' * depth}.. note::\n\n" for depth in range(200)) + "   " * 200 + "the core\n"
    assert "the core" in load(nested.encode()).text


def test_levels_follow_the_order_of_styles_and_a_line_above_makes_another():
    source = "=====\nTitle\n=====\n\nPart ä\n------\n\nDeep\n~~~~\n\nNext\n----\n\nLast\n====\n"
    found = [(heading.level, heading.text) for heading in load(source.encode()).headings]
    assert found == [(1, "Title"), (2, "Part ä"), (3, "Deep"), (2, "Next"), (4, "Last")]


def test_markup_in_a_title_is_read_not_shown():
    source = "Use :func:`~run` and ``x_y`` of `this <https://x.org>`_ *now* \\*\n" + "=" * 80
    assert [heading.text for heading in load(source.encode()).headings] == ["Use run and x_y of this now *"]


@pytest.mark.parametrize(
    "source",
    [
        "above\n\n-----\n\nbelow\n",
        "of a\nparagraph\n---------\n",
        "  indented\n  --------\n",
        "=====  =====\nA      B\n=====  =====\n",
        "Title\n--\n",
        "::\n\n    # comment\n    =========\n",
        "+---+\n| a |\n+---+\n",
    ],
)
def test_rules_tables_and_code_are_no_titles(source):
    assert load(source.encode()).headings == ()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published documentation at {PUBLISHED}")
def test_published_documentation_has_exact_headings():
    paths = sorted(PUBLISHED.rglob("*.rst"))
    assert len(paths) > 20
    for path in paths:
        extracted = extract(path.read_bytes(), path.name)
        assert extracted.media_type == "text/x-rst", path
        document = to_document(extracted, Group("hash", ("id",)), source="")
        spans = heading_spans(document)
        assert [document.text[start:end] for start, end in spans] == [each.text for each in extracted.headings], path
        starts = [heading.start for heading in extracted.headings]
        assert starts == sorted(set(starts)), path
