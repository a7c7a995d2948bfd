"""What a page says in right-to-left scripts and at line ends; files are written by hand, which libraries cannot."""

import pytest

from ingest.load.pdf import load

MAPPING = """/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /A def /CMapType 2 def
1 begincodespacerange <00> <FF> endcodespacerange
{count} beginbfchar
{pairs}
endbfchar endcmap end end"""


def stream(content: str) -> str:
    return f"<< /Length {len(content)} >> stream\n{content}\nendstream"


def written(content: str, letters: dict[str, str]) -> bytes:
    """A PDF of one page whose font has a glyph for each of `letters`, which may stand for several characters."""
    pairs = [f"<{ord(glyph):02X}> <{text.encode('utf-16-be').hex()}>" for glyph, text in letters.items()]
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources << /Font << /F 5 0 R >> >> >>",
        stream(content),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Courier /ToUnicode 6 0 R >>",
        stream(MAPPING.format(count=len(pairs), pairs="\n".join(pairs))),
    ]
    body = "".join(f"{number} 0 obj\n{item}\nendobj\n" for number, item in enumerate(objects, start=1))
    return f"%PDF-1.4\n{body}trailer << /Root 1 0 R >>\n".encode()


def shown(*strings: tuple[int, int, str]) -> str:
    return "\n".join(f"BT /F 10 Tf {x} {y} Td ({string}) Tj ET" for x, y, string in strings)


def test_letters_that_one_glyph_stands_for_keep_their_order():
    # Seen from the right: seen, a glyph for lam and alef, meem.
    letters = {"a": "\u0633", "b": "\u0644\u0627", "c": "\u0645"}
    assert load(written(shown((50, 700, "cba")), letters)).text == "\u0633\u0644\u0627\u0645"


def test_cells_of_a_right_to_left_line_are_read_from_the_right():
    letters = {"a": "\u062a", "b": "\u0627", "c": "\u0631", "d": "\u0642", "e": "\u0645"}
    text = load(written(shown((50, 700, "cba"), (300, 700, "ede")), letters)).text
    assert text == "\u0645\u0642\u0645 \u062a\u0627\u0631"


@pytest.mark.parametrize(("second", "expected"), [("mation is", "information is"), ("Mation is", "infor-Mation is")])
def test_a_word_broken_at_a_line_end_is_mended(second, expected):
    content = shown((50, 700, "some infor-"), (50, 688, second))
    assert load(written(content, {"~": "~"})).text == f"some {expected}"


def test_half_a_character_is_never_handed_on():
    content = shown((50, 700, "ab"))
    text = load(written(content, {"a": "A"}).replace(b"<0041>", b"<D83D>")).text
    text.encode()
    assert text.endswith("b")
