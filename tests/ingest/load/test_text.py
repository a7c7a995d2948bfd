from ingest.load.extracted import Extracted
from ingest.load.text import load


def test_plain_text_is_its_characters_and_nothing_more():
    assert load("\ufeff# not a heading\r\n  two\r".encode()) == Extracted(
        text="# not a heading\n  two\n", title=None, headings=(), page_starts=(), metadata={}, media_type="text/plain"
    )
