"""Inline markup of reStructuredText, reduced to its text."""

from __future__ import annotations

import re
from dataclasses import dataclass

# An end is looked for within this distance, so that marks that are never closed cost no more than others.
_SPAN = r"(?:(?!\n[ \t]*\n)[\s\S]){1,1000}?"
_WITHIN = r"(?:(?!\n[ \t]*\n)[^`\\]|\\[\s\S]){1,1000}?"
_REPLACEMENT = re.compile(r"^[ \t]*\.\.[ \t]+\|([^|\n]+)\|[ \t]+(?:replace|unicode)::[ \t]+(.+)$", re.MULTILINE)
_TARGET = re.compile(r"^[ \t]*\.\.[ \t]+_(?:`([^`\n]+)`|([^:\n]+)):(?=\s)", re.MULTILINE)
_LITERAL = re.compile(rf"``({_SPAN})``(?!`)")
_ROLE = re.compile(rf"(?<![\w:]):[A-Za-z][\w.+-]*(?::[A-Za-z][\w.+-]*)*:`({_SPAN})(?<!\\)`(?!`)")
_INTERPRETED = re.compile(rf"(?<![\w`])_?`(?!\s)({_WITHIN})(?<![\s\\])`(?:__?(?!\w)|:[A-Za-z][\w.+:-]*:)?")
_LABELLED = re.compile(r"(.*\S)\s*<[^<>]+>", re.DOTALL)
_SUBSTITUTION = re.compile(r"\|(?!\s)([^|\n]{1,100}?)(?<!\s)\|_{0,2}(?!\w)")
_FOOTNOTE = re.compile(r"(\[[^\[\]\s]{1,100}\])_(?!\w)")
_REFERENCE = re.compile(r"(?<![\w`])(\w+(?:[-.+]\w+)*?)__?(?!\w)")
_STRONG = re.compile(rf"(?<![\w*\\])\*\*(?=\S)({_SPAN})(?<=[^\s\\])\*\*(?![\w*])")
_EMPHASIS = re.compile(r"(?<![\w*\\])\*(?=[^\s*])([^*]{1,1000}?)(?<=[^\s\\])\*(?![\w*])")
_ESCAPE = re.compile(r"\\(?:\s|(\S))")
_PUT_ASIDE = re.compile("\0(\\d+)\0")
_MAX_REPLACEMENT_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Inline:
    """What inline markup of one file refers to.

    Attributes:
        replacements: Texts of substitutions, by name.
        targets: Names of the targets in the file, in lower case.
    """

    replacements: dict[str, str]
    targets: frozenset[str]

    @classmethod
    def of(cls, source: str) -> Inline:
        """What is defined anywhere in a file."""
        return cls(
            {
                match[1].strip(): match[2].strip()[:_MAX_REPLACEMENT_CHARACTERS]
                for match in _REPLACEMENT.finditer(source)
            },
            frozenset((match[1] or match[2]).strip().lower() for match in _TARGET.finditer(source)),
        )

    def text(self, source: str) -> str:
        """Without roles, references, emphasis and escapes; literals and what roles are given stay as they are."""
        aside: list[str] = []

        def put_aside(text: str) -> str:
            aside.append(text)
            return f"\0{len(aside) - 1}\0"  # clean text has no NUL of its own

        text = _LITERAL.sub(lambda match: put_aside(match[1]), source)
        text = _ROLE.sub(lambda match: put_aside(_label(match[1]).lstrip("!~")), text)
        text = _INTERPRETED.sub(lambda match: put_aside(_label(match[1])), text)
        text = _SUBSTITUTION.sub(lambda match: self.replacements.get(match[1], match[0]), text)
        text = _FOOTNOTE.sub(r"\1", text)
        text = _REFERENCE.sub(lambda match: match[1] if match[1].lower() in self.targets else match[0], text)
        text = _EMPHASIS.sub(r"\1", _STRONG.sub(r"\1", text))
        text = _ESCAPE.sub(lambda match: match[1] or "", text)
        while aside and _PUT_ASIDE.search(text):  # a role may hold a literal
            text = _PUT_ASIDE.sub(lambda match: aside[int(match[1])], text)
        return text


def _label(text: str) -> str:
    """What a reader sees of `label <target>`."""
    labelled = _LABELLED.fullmatch(text)
    return labelled[1] if labelled else text
