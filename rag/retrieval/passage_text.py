"""The text of a passage as models read it: with its title and its place, without which it may not make sense."""

from __future__ import annotations

from rag.types import Passage


def indexed_text(passage: Passage) -> str:
    """What is embedded and indexed: title, path of headings, context and text on lines of their own, if not empty.

    A first heading that says what the title says is not repeated.
    """
    return "\n".join(part for part in (*_place(passage), passage.context, passage.text.strip()) if part)


def reranked_text(passage: Passage) -> str:
    """What a reranker reads: title, path of headings and text. What a language model wrote is left out."""
    return "\n".join(part for part in (*_place(passage), passage.text.strip()) if part)


def _place(passage: Passage) -> tuple[str, str]:
    headings = passage.headings
    if headings and headings[0].strip() == passage.title.strip():
        headings = headings[1:]
    return passage.title, " > ".join(headings)
