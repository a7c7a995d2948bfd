import pytest

from ingest.load.asciidoc import load

SOURCE = """\
= Guide to {product}
Jane Doe <jane@example.org>
v1.2, 2024-05-06
:product: Thing

// a comment
[NOTE]
====
Use *bold*, `co*d*e` and __x__ at https://example.org[the site^].
====

////
a block of comments
////

[[install]]
== Install it

include::secret.txt[]

.Listing
[source,python]
----
x = 1 # <1>
== no heading
----

* one
** two

CPU:: The brain

[cols="1,a"]
|===
|A |B

|one
|two
more

2+|span
|===

Old style
---------

+++<b>raw</b>+++
"""


def test_a_document_is_what_a_reader_of_its_page_reads():
    extracted = load(SOURCE.encode())
    assert extracted.text.split("\n\n") == [
        "Guide to Thing",
        "Note:",
        "Use bold, co*d*e and x at the site.",
        "Install it",
        "Listing",
        "x = 1\n== no heading",
        "- one\n  - two",
        "CPU: The brain",
        "A | B\none | two more\nspan",
        "Old style",
        "<b>raw</b>\n",
    ]
    assert extracted.title == "Guide to Thing"
    assert extracted.metadata == {"author": "Jane Doe <jane@example.org>", "date": "2024-05-06", "version": "1.2"}
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (1, "Guide to Thing"),
        (2, "Install it"),
        (2, "Old style"),
    ]
    for heading in extracted.headings:
        assert extracted.text[heading.start :].startswith(f"{heading.text}\n")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a {unknown} b", "a {unknown} b"),
        ("<<id,the section>> and <<other>>", "the section and other"),
        ("xref:page.adoc#x[Page] link:a.html[]", "Page a.html"),
        ("press kbd:[Ctrl+C] or menu:File[Save]", "press Ctrl+C or File > Save"),
        ("a footnote:[More.] b", "a  (More.) b"),
        ("E=mc^2^ H~2~O [.red]#warm#", "E=mc2 H2O warm"),
        ("image:icon.png[Icon,16] here", "Icon here"),
        ("snake_case_name and 2 * 3 * 4", "snake_case_name and 2 * 3 * 4"),
        ("pass:[<u>x</u>] \\*kept*", "<u>x</u> *kept*"),
        ("line one +\nline two", "line one\nline two"),
    ],
)
def test_inline_markup_is_reduced_to_its_text(source, expected):
    assert load(source.encode()).text == f"{expected}\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("|===\n|a |b\n|c |d\n|===", "a | b\nc | d"),
        ("|===\n|w |x|\n|y |z|\n|===", "w | x\ny | z"),
        ("|===\n^.^h|a ^h| b\n| s | m\n|===", "a | b\ns | m"),
        ('[cols="2*"]\n|===\n|a\n|b\n2*|c\n|===', "a | b\nc | c"),
        ("|===\n|a \\| b |c\n|===", "a | b | c"),
        (',===\na,"b,c"\n,===', "a | b,c"),
    ],
)
def test_tables_are_rows_with_bars(source, expected):
    assert load(source.encode()).text == f"{expected}\n"


def test_attributes_that_multiply_each_other_stay_within_bounds():
    bomb = "\n".join(f":a{n}: {f'{{a{n + 1}}}' * 300}" for n in range(9)) + "\n:a9: boom\n\n{a0}\n"
    assert len(load(bomb.encode()).text) < 10 * len(bomb)


def test_a_block_that_is_never_closed_costs_no_text():
    assert load(b"before\n\n----\ncode\n\nafter\n").text == "before\n\ncode\n\nafter\n"
