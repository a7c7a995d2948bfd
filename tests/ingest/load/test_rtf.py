import pytest

from ingest.load.rtf import load
from rag.errors import DocumentError

FONTS = rb"{\fonttbl{\f0\fswiss Arial;}{\f1\fnil\fcharset204 Cyr;}{\f2\fnil\fcharset128 Jp;}}"


def rtf(body: bytes, before: bytes = b"") -> bytes:
    return rb"{\rtf1\ansi\ansicpg1252\deff0" + FONTS + before + body + b"}"


def test_paragraphs_headings_and_items_keep_their_structure():
    styles = rb"{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 Kop;}{\s2 heading 2;}{\s3 Title;}{\*\cs10\b Strong;}}"
    body = (
        rb"\pard\s3 The Title\par\pard\s1 Scope\par\pard\plain Some {\b bold} text\line here.\par "
        rb"{\listtext \'b7\tab}one\par{\pntext 2.\tab}two\par\pard\s2 Detail\par"
    )
    extracted = load(rtf(body, styles))
    assert extracted.text == "The Title\n\nScope\n\nSome bold text\nhere.\n\n- one\n2. two\n\nDetail"
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (1, "The Title"),
        (1, "Scope"),
        (2, "Detail"),
    ]
    assert extracted.title == "The Title"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"caf\'e9", "café"),
        (rb"{\f1 \'cf\'f0}{\f2 \'82\'a0} \'e9", "Прあ é"),
        (rb"\u8364?\u-255 \'a3{\uc0\u228}x{\uc2\u228 ??}y", "€！äxäy"),
        (rb"\u-10179?\u-8704?", "😀"),
        (rb"a\emdash b\~c\_d\-e \{x\}\\", "a—b c-de {x}\\"),
        (b"wrapped\r\n over lines\\\r\nnext", "wrapped over lines\n\nnext"),
        (rb"a{\*\unknown b}{\pict\bin4 }}}}c}d{\v e}{\header f}{\deleted g}", "ad"),
        (rb'{\field{\*\fldinst HYPERLINK "http://x"}{\fldrslt link}}', "link"),
        (rb"{\shp{\*\shpinst{\sp{\sn n}{\sv v}}{\shptxt boxed\par}}{\shprslt again}}", "boxed"),
    ],
)
def test_text_is_what_a_reader_of_today_shows(written, read):
    assert load(rtf(written)).text == read


def test_a_table_is_a_line_per_row():
    row = rb"\trowd\cellx1\cellx2\pard\intbl %s\cell %s\cell\row"
    body = rb"before\par" + row % (rb"A\par a", b"B") + row % (b"", b"D") + rb"\pard after\par"
    assert load(rtf(body)).text == "before\n\nA a | B\n| D\n\nafter"


def test_footnotes_stand_at_the_end():
    body = rb"One{\footnote\pard first\par more} and two{\footnote second}.\par End"
    assert load(rtf(body)).text == "One[^1] and two[^2].\n\nEnd\n\n[^1]: first more\n[^2]: second"


def test_the_properties_say_title_and_author():
    info = rb"{\info{\title Plan f\'fcr 2025}{\author Ann}{\operator Bob}{\creatim\yr2020}{\keywords a, b}}"
    extracted = load(rtf(b"Text", info))
    assert (extracted.title, extracted.text) == ("Plan für 2025", "Text")
    assert extracted.metadata == {"author": "Ann", "keywords": ["a", "b"]}


def test_what_is_no_rtf_or_nested_beyond_reason_is_corrupt():
    with pytest.raises(DocumentError, match="corrupt RTF"):
        load(b"just words")
    with pytest.raises(DocumentError, match="nested"):
        load(b"{\\rtf1" + b"{" * 2000)


@pytest.mark.parametrize("noise", [b"}" * 9, b"\\", b"\\'", b"\\'zz", b"{\\*", b"\\u", b"\\bin99999999 x", b"\\f-5 x"])
def test_broken_control_words_break_nothing_before_them(noise):
    assert load(rtf(b"before\\par ")[:-1] + noise).text.startswith("before")
