"""Which parser reads which kind of file: by suffix, and by the marks that content of a kind begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ingest.load import html, markdown, pdf, text
from ingest.load.extracted import Extracted

Parser = Callable[[bytes], Extracted]

PARSERS: Mapping[str, Parser] = {
    ".htm": html.load,
    ".html": html.load,
    ".markdown": markdown.load,
    ".md": markdown.load,
    ".pdf": pdf.load,
    ".text": text.load,
    ".txt": text.load,
    ".xhtml": html.load,
}
"""By suffix, in lower case, with the dot. A parser imports its library when it is called."""
