"""XML from strangers: no entity is ever expanded, nothing outside is ever fetched.

Entities can only be declared before the root element, so that beginning is read first, by itself, and a document that
declares any is refused; what is left cannot grow. The standard library's parser then does the rest at its full speed.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from io import BytesIO
from typing import IO
from xml.parsers import expat

from rag.errors import DocumentError

MAX_ELEMENTS = 200_000
"""Inside one element that is streamed: a row of a sheet has up to 16,384 cells of five elements each."""

_PROLOG_STEP_BYTES = 1 << 14


class _RootReached(Exception):  # noqa: N818 - no error
    pass


def parse(data: bytes, name: str) -> ET.Element:
    """The root element of `data`; `name` is for messages.

    Raises:
        DocumentError: It is not well-formed, or it declares entities.
    """
    _refuse_entities(BytesIO(data), name)
    try:
        return ET.fromstring(data)  # noqa: S314 - see above
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DocumentError(f"corrupt: {name} is not well-formed XML ({error})") from error


def elements(stream: IO[bytes], name: str, tags: frozenset[str]) -> Iterator[ET.Element]:
    """The outermost elements with one of `tags` (local names), each when it ends; none is kept after that.

    For parts too long for a tree.

    Args:
        stream: Can be rewound.
        name: For messages.
        tags: Of elements that have at most `MAX_ELEMENTS` inside.

    Raises:
        DocumentError: As `parse`; or one of the elements holds too many others.
    """
    _refuse_entities(stream, name)
    stream.seek(0)
    open_elements: list[ET.Element] = []
    depth = held = 0
    try:
        for event, element in ET.iterparse(stream, events=("start", "end")):  # noqa: S314 - see above
            if event == "start":
                open_elements.append(element)
                if depth or local_name(element) in tags:
                    depth += 1
                    held += 1
                if held > MAX_ELEMENTS:
                    raise DocumentError(f"refused: one element of {name} holds over {MAX_ELEMENTS:,} others")
                continue
            open_elements.pop()
            depth -= depth > 0
            if depth == 0:
                if local_name(element) in tags:
                    yield element
                held = 0
                element.clear()
                if open_elements:
                    open_elements[-1].remove(element)
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DocumentError(f"corrupt: {name} is not well-formed XML ({error})") from error


def local_name(element: ET.Element) -> str:
    """The tag without its namespace."""
    return element.tag.rpartition("}")[2]


def _refuse_entities(stream: IO[bytes], name: str) -> None:
    def refuse(*_: object) -> None:
        raise DocumentError(f"refused: {name} declares XML entities, as entity bombs do")

    def stop(*_: object) -> None:
        raise _RootReached

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = stop
    try:
        while step := stream.read(_PROLOG_STEP_BYTES):
            parser.Parse(step)
        parser.Parse(b"", True)  # noqa: FBT003 - there is no keyword
    except _RootReached:
        return
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DocumentError(f"corrupt: {name} is not well-formed XML ({error})") from error
