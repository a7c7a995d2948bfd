"""HTML: the main content, with its blocks, headings, lists and tables as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ingest.load.decoding import decode
from ingest.load.extracted import Extracted
from ingest.load.html_blocks import render
from ingest.load.html_bounds import bounded
from rag.types import Heading, Scalar

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

_DECLARATION_BYTES = 4096
_MAX_MAINS = 3
_DECLARED = re.compile(
    rb"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([\w.:-]+)|<\?xml\b[^>]*?\bencoding\s*=\s*["']([\w.:-]+)""",
    re.IGNORECASE,
)
_NEVER_CONTENT = frozenset(
    "head script style template noscript svg iframe object canvas audio video datalist select textarea".split()
)
_NOT_MAIN = _NEVER_CONTENT | {"nav"}
_AROUND_MAIN = _NOT_MAIN | {"header", "footer", "aside"}


def load(data: bytes) -> Extracted:
    """The main content of a page: `<main>`, else the only `<article>`, else the body without what surrounds content.

    Several articles are a listing, and what stands around them belongs to it.

    Raises:
        DocumentError: The file is empty or binary, or its encoding cannot be detected.
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(bounded(decode(data, _declared_encoding(data))))
    hidden = frozenset(node.mem_id for node in tree.css('[hidden]:not([hidden="until-found"])'))
    text = ""
    headings: tuple[Heading, ...] = ()
    for root, dropped in _candidates(tree):
        text, headings = render(root, dropped, hidden)
        if text:
            break
    return Extracted(text=text, title=_title(tree), headings=headings, metadata=_metadata(tree), media_type="text/html")


def _declared_encoding(data: bytes) -> str | None:
    match = _DECLARED.search(data[:_DECLARATION_BYTES])
    return (match[1] or match[2]).decode("ascii", errors="replace") if match else None


def _candidates(tree: LexborHTMLParser) -> Iterator[tuple[LexborNode, frozenset[str]]]:
    """Where the content may stand, the likeliest first; the next is tried when there is no text in one."""
    for main in tree.css("main, [role=main]")[:_MAX_MAINS]:
        yield main, _NOT_MAIN
    articles = tree.css("article")
    if len(articles) == 1 + len(tree.css("article article")):
        yield articles[0], _NOT_MAIN
    root = tree.body or tree.root
    if root is not None:
        yield root, _AROUND_MAIN
        yield root, _NEVER_CONTENT


def _title(tree: LexborHTMLParser) -> str | None:
    for selector in ("head > title", "h1"):
        node = tree.css_first(selector)
        title = " ".join(node.text().split()) if node is not None else ""
        if title:
            return title
    return None


def _metadata(tree: LexborHTMLParser) -> dict[str, Scalar | list[str]]:
    metadata: dict[str, Scalar | list[str]] = {}
    for node in tree.css("meta[name]"):
        attributes = node.attributes
        name = (attributes.get("name") or "").lower()
        content = " ".join((attributes.get("content") or "").split())
        if name in ("description", "author") and content:
            metadata.setdefault(name, content)
    html = tree.css_first("html")
    language = (html.attributes.get("lang") or "").strip() if html is not None else ""
    if language:
        metadata["language"] = language
    return metadata
