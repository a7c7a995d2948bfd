import pytest

from ingest.load.epub import load
from rag.errors import DocumentError
from tests.ingest.load.test_archive import zipped

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)


def book(*chapters: str, metadata: str = "", **members: str) -> bytes:
    """A book whose spine lists its chapters backwards."""
    items = "".join(
        f'<item id="c{number}" href="text/chapter%20{number}.xhtml" media-type="application/xhtml+xml"/>'
        for number in range(len(chapters))
    )
    references = "".join(f'<itemref idref="c{number}"/>' for number in reversed(range(len(chapters))))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f'{metadata}</metadata><manifest>{items}<item id="n" href="nav.xhtml" properties="nav" '
        'media-type="application/xhtml+xml"/><item id="i" href="cover.png" media-type="image/png"/></manifest>'
        f'<spine><itemref idref="i"/><itemref idref="n"/>{references}<itemref idref="c0"/><itemref idref="no"/></spine>'
        "</package>"
    )
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OEBPS/book.opf": package,
            "OEBPS/nav.xhtml": page("<nav><ol><li>Contents</li></ol></nav>"),
            **{f"OEBPS/text/chapter {number}.xhtml": text for number, text in enumerate(chapters)},
            **{name.replace("__", "/"): content for name, content in members.items()},
        }
    )


def page(body: str) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
        f"<head><title/><script src='x.js'/></head><body>{body}</body></html>"
    )


def test_chapters_stand_in_the_order_of_the_spine_each_once():
    extracted = load(
        book(
            page('<h2>Second</h2><p>b<a id="x"/>c</p><aside><p>A note.</p></aside>'),
            page("<section><header><h1>First</h1></header><p>a</p></section>"),
        )
    )
    assert extracted.text == "First\n\na\n\nSecond\n\nbc\n\nA note."
    assert [(heading.level, heading.text) for heading in extracted.headings] == [(1, "First"), (2, "Second")]
    assert all(extracted.text.startswith(heading.text, heading.start) for heading in extracted.headings)
    assert (extracted.title, extracted.page_starts) == ("First", ())


def test_the_package_says_title_and_authors():
    metadata = (
        "<dc:title>A Book</dc:title><dc:creator>Ann</dc:creator><dc:creator>Bob</dc:creator>"
        "<dc:language>en</dc:language>"
    )
    extracted = load(book(page("<h1>One</h1>"), metadata=metadata))
    assert extracted.title == "A Book"
    assert extracted.metadata == {"author": "Ann, Bob", "language": "en"}


def test_a_book_under_drm_is_reported_and_one_with_scrambled_fonts_is_read():
    encryption = '<encryption><EncryptedData><EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>'
    scrambled = encryption.format("http://www.idpf.org/2008/embedding")
    assert load(book(page("<p>open</p>"), **{"META-INF__encryption.xml": scrambled})).text == "open"
    locked = encryption.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")
    with pytest.raises(DocumentError, match="DRM"):
        load(book(page("<p>shut</p>"), **{"META-INF__encryption.xml": locked}))


def test_a_book_without_its_package_document_is_corrupt():
    with pytest.raises(DocumentError, match=r"OEBPS/book\.opf is missing"):
        load(zipped({"META-INF/container.xml": CONTAINER}))
    with pytest.raises(DocumentError, match="does not name"):
        load(zipped({"META-INF/container.xml": "<container/>"}))


def test_a_chapter_that_is_missing_or_empty_takes_nothing_from_the_others():
    assert load(book("", page("<p>text</p>"))).text == "text"
