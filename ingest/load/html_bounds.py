"""HTML that no parser takes long over.

Tree construction walks the stack of open elements for many tags and compares every attribute of a tag with all others
(WHATWG HTML, section 13.2), so its cost grows with the square of the nesting and of the attributes. Browsers cut
both off; here the tags beyond the bounds are left out before parsing, and their text stays.
"""

from __future__ import annotations

import re

_MAX_DEPTH = 1000
_MAX_ATTRIBUTES = 1000
_LONG_TAG_CHARACTERS = 4 * _MAX_ATTRIBUTES

_TAG = re.compile(r"<!--|<(/?)([A-Za-z][^\s/>]*)")
_ATTRIBUTE = re.compile(r"[\s/]*[^\s/>=]+(?:\s*=\s*(?:\"[^\"]*(?:\"|\Z)|'[^']*(?:'|\Z)|[^\s>]*))?")
_RAW_TEXT = frozenset({"script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes"})
_FOREIGN = frozenset({"svg", "math"})
# Void, or closed by the next of their kind: thousands of these without an end tag nest nothing.
_NOT_NESTING = frozenset(
    "area base br col embed hr img input link meta param source track wbr "
    "html head body p li dt dd td th tr thead tbody tfoot option optgroup colgroup rb rp rt rtc".split()
)


def bounded(source: str) -> str:
    """`source` without start tags nested deeper than 1,000, and without the attributes of a tag that has over 1,000."""
    kept: list[str] = []
    copied = position = depth = 0
    foreign = False
    while match := _TAG.search(source, position):
        end = _after(source, "-->" if match[2] is None else ">", match.end())
        if end < 0:
            break
        position = end
        if match[2] is None:
            continue
        name = match[2].lower()
        if match[1]:
            foreign = foreign and name not in _FOREIGN
            depth -= depth > 0 and name not in _NOT_NESTING
            continue
        foreign = foreign or name in _FOREIGN
        if name in _RAW_TEXT and not foreign:
            closing = re.compile(f"</{name}", re.IGNORECASE).search(source, end)
            if closing is None:
                break
            position = closing.start()
            continue
        nests = name not in _NOT_NESTING and not (foreign and source[end - 2] == "/")
        too_deep = nests and depth >= _MAX_DEPTH
        depth += nests and not too_deep
        if too_deep:
            kept.append(source[copied : match.start()])
            copied = end
        elif end - match.end() > _LONG_TAG_CHARACTERS:
            tag_end = _attributes_end(source, match.end())
            if tag_end is not None:
                kept.append(source[copied : match.end()])
                copied = position = tag_end
    kept.append(source[copied:])
    return "".join(kept)


def _after(source: str, mark: str, position: int) -> int:
    found = source.find(mark, position)
    return found + len(mark) if found >= 0 else -1


def _attributes_end(source: str, position: int) -> int | None:
    """Where a tag with too many attributes ends; None for one with few, however long."""
    count = 0
    while (match := _ATTRIBUTE.match(source, position)) is not None:
        count += 1
        position = match.end()
    return position if count > _MAX_ATTRIBUTES else None
