"""What a document or a book says of itself, as far as a person said it and not a program."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from xml.etree.ElementTree import Element

from ingest.load.assembly import words
from ingest.load.xml_tree import local_name
from rag.errors import DocumentError
from rag.types import Scalar

_PLACEHOLDER = re.compile(
    r"\(?(?:anonymous|unspecified|unknown|none|null|user|administrator|admin|author|microsoft office user"
    r"|python-docx|python-pptx|openpyxl|apache poi|windows user|un-named)\)?",
    re.IGNORECASE,
)
_NO_TITLE = re.compile(
    r"untitled.*|no title|title|microsoft (?:word|powerpoint|excel)\b.*|word document|excel workbook"
    r"|(?:powerpoint[- ])?pr[eäé]sentation ?\d*|document ?\d*|book ?\d*|slide ?\d+|sheet ?\d*|workbook ?\d*|template"
    r"|scan.?\d*|print|layout \d+"
    r"|.*\.(?:do[ct][xm]?|pp[ts][xm]?|xl[st][xm]?|od[tps]|rtf|tex|dvi|e?ps|pdf|indd|qxd|pmd|fm|wpd|x?html?|txt|epub"
    r"|jpe?g|png|tiff?)",
    re.IGNORECASE | re.DOTALL,
)
# Dublin Core and its neighbours in the core properties of OOXML, the meta of ODF and the package of EPUB.
_NAMES = {
    "creator": "author",
    "subject": "subject",
    "description": "description",
    "language": "language",
    "keywords": "keywords",
    "keyword": "keywords",
}


def readable(properties: Callable[[], Element | None]) -> Element | None:
    """What `properties` reads; None where they are broken, for a document is worth more than what it says of itself."""
    try:
        return properties()
    except DocumentError:
        logging.getLogger(__name__).debug("the properties of a document cannot be read", exc_info=True)
        return None


def is_placeholder(value: str) -> bool:
    """Whether a program put `value` where a person was to say something, or nothing is there."""
    return not value or _PLACEHOLDER.fullmatch(value) is not None


def meaningful_title(title: str | None) -> str | None:
    """`title` on one line; None where a program put it there, or it says nothing."""
    line = words(title or "")
    meaningful = len(line) > 2 and any(map(str.isalpha, line)) and not _NO_TITLE.fullmatch(line)
    return line if meaningful and "\\" not in line else None


def title_of(properties: Element | None) -> str | None:
    """The `dc:title` among `properties`, if it is meaningful."""
    found = (element.text for element in (() if properties is None else properties.iter()) if _is(element, "title"))
    return next((title for title in map(meaningful_title, found) if title is not None), None)


def metadata_of(properties: Element | None) -> dict[str, Scalar | list[str]]:
    """Author, subject, description, language and keywords among `properties`; several authors are one string."""
    values: dict[str, list[str]] = {}
    # Where ODF names who began a document, its creator is who saved it last.
    authors = {"creator": "", "initial-creator": "author"} if _has(properties, "initial-creator") else {}
    for element in () if properties is None else properties.iter():
        name = {**_NAMES, **authors}.get(local_name(element))
        value = words(element.text or "")
        if name and not is_placeholder(value):
            values.setdefault(name, []).append(value)
    return metadata(values)


def metadata(values: dict[str, list[str]]) -> dict[str, Scalar | list[str]]:
    """The values of each name as one string without repetition; keywords stay a list."""
    found: dict[str, Scalar | list[str]] = {}
    for name, texts in values.items():
        if name == "keywords":
            found[name] = _unique(keyword.strip() for text in texts for keyword in re.split("[,;]", text))
        else:
            found[name] = ", ".join(_unique(texts))
    return {name: value for name, value in found.items() if value}


def _unique(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _is(element: Element, name: str) -> bool:
    return local_name(element) == name


def _has(properties: Element | None, name: str) -> bool:
    return properties is not None and any(_is(element, name) for element in properties.iter())
