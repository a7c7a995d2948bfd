"""Source code: the text is the source as it stands, the headings are its definitions."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ingest.load.decoding import decode
from ingest.load.extracted import Extracted
from rag.types import Heading

if TYPE_CHECKING:
    from tree_sitter import Node

LANGUAGES: Mapping[str, str] = {
    suffix: language
    for language, suffixes in {
        "c": ".c",
        "c#": ".cs",
        "c++": ".cc .cpp .cxx .h .hh .hpp .hxx",
        "clojure": ".clj",
        "css": ".css .less .scss",
        "dart": ".dart",
        "elixir": ".ex .exs",
        "go": ".go",
        "graphql": ".graphql",
        "groovy": ".gradle .groovy",
        "haskell": ".hs",
        "java": ".java",
        "javascript": ".cjs .js .jsx .mjs",
        "julia": ".jl",
        "kotlin": ".kt .kts",
        "lua": ".lua",
        "objective-c": ".m .mm",
        "perl": ".pl .pm",
        "php": ".php",
        "powershell": ".ps1",
        "protobuf": ".proto",
        "python": ".py .pyi",
        "r": ".r",
        "ruby": ".rb",
        "rust": ".rs",
        "scala": ".scala",
        "shell": ".bash .sh .zsh",
        "sql": ".sql",
        "swift": ".swift",
        "terraform": ".tf",
        "tsx": ".tsx",
        "typescript": ".cts .mts .ts",
    }.items()
    for suffix in suffixes.split()
}
"""By suffix, in lower case, with the dot."""


@dataclass(frozen=True, slots=True)
class _Grammar:
    """How definitions are told in the syntax tree of a language.

    Attributes:
        package: Of tree-sitter, and the function in it that gives the language.
        functions: Patterns of a query; what stands in a function is no definition of its own.
        containers: Types of the nodes whose definitions are theirs.
        separator: Between the names of a container and of what is in it.
    """

    package: str
    function: str
    functions: str
    containers: str
    separator: str = "."


_ECMASCRIPT_FUNCTIONS = (
    "(function_declaration) (generator_function_declaration) (method_definition) "
    "(variable_declarator value: [(arrow_function) (function_expression) (generator_function)])"
)
_TYPESCRIPT_CONTAINERS = (
    "class_declaration abstract_class_declaration interface_declaration enum_declaration type_alias_declaration "
    "internal_module module"
)
_C_CONTAINERS = "struct_specifier union_specifier enum_specifier"
_GRAMMARS: Mapping[str, _Grammar] = {
    "c": _Grammar("tree_sitter_c", "language", "(function_definition)", _C_CONTAINERS),
    "c++": _Grammar(
        "tree_sitter_cpp",
        "language",
        "(function_definition)",
        f"{_C_CONTAINERS} class_specifier namespace_definition",
        "::",
    ),
    "go": _Grammar("tree_sitter_go", "language", "(function_declaration) (method_declaration)", "type_spec"),
    "java": _Grammar(
        "tree_sitter_java",
        "language",
        "(method_declaration) (constructor_declaration) (compact_constructor_declaration)",
        "class_declaration interface_declaration enum_declaration record_declaration annotation_type_declaration",
    ),
    "javascript": _Grammar("tree_sitter_javascript", "language", _ECMASCRIPT_FUNCTIONS, "class_declaration"),
    "python": _Grammar("tree_sitter_python", "language", "(function_definition)", "class_definition"),
    "rust": _Grammar(
        "tree_sitter_rust",
        "language",
        "(function_item) (macro_definition)",
        "struct_item enum_item union_item trait_item impl_item mod_item",
        "::",
    ),
    "tsx": _Grammar("tree_sitter_typescript", "language_tsx", _ECMASCRIPT_FUNCTIONS, _TYPESCRIPT_CONTAINERS),
    "typescript": _Grammar(
        "tree_sitter_typescript", "language_typescript", _ECMASCRIPT_FUNCTIONS, _TYPESCRIPT_CONTAINERS
    ),
}
# What a definition is wrapped in, which begins before it: decorators, `export`, `template <...>`, `const name =`.
_WRAPPERS = frozenset(
    "decorated_definition export_statement template_declaration lexical_declaration variable_declaration "
    "type_declaration type_definition ambient_declaration linkage_specification".split()
)
_BEFORE = re.compile("comment|attribute_item|decorator")
_MAX_NAME_CHARACTERS = 200
_TOP_LEVEL = "top level"


# Lines of a container's own after what is defined in it; a comment or bracket behind that is none.
_OWN_CODE = re.compile(rb"\n[ \t]*(?![ \t]|#[ \t]*(?:endif|else|elif)\b)([^\s\w]*\w)")
_RECEIVER = re.compile(r"(\w+)(?:\[[^\]]*\])?\s*\)?$")
_WITH_BODY = frozenset("struct_specifier union_specifier enum_specifier class_specifier mod_item".split())
_MAX_ROWS_ABOVE = 2
_MAX_DECLARATORS = 20


@dataclass(frozen=True, slots=True)
class _Definition:
    """Offsets in bytes; `name` is without those of its containers."""

    start: int
    end: int
    name: str
    is_function: bool


@dataclass(slots=True)
class _Open:
    """A definition that is not closed yet, the whole file included.

    Attributes:
        rest: Where what was last defined in it ends; None before that.
    """

    definition: _Definition
    level: int
    name: str
    rest: int | None = None


def parsers() -> dict[str, Callable[[bytes], Extracted]]:
    """`load` for the language of each suffix."""
    return {suffix: partial(load, language=language) for suffix, language in LANGUAGES.items()}


def load(data: bytes, language: str) -> Extracted:
    """Source code, unchanged but for its line ends.

    Headings are the classes, functions and methods with their qualified names, `Outer.method`, by depth; each starts
    where its comments and decorators do, so that a passage has them with the code they belong to. Code between and
    after definitions is headed by what it stands in, which is `top level` outside of all. Languages without a
    grammar have no headings. Code that is not correct has those that can be told.

    Args:
        data: The whole file.
        language: A value of `LANGUAGES`.

    Raises:
        DocumentError: The file is empty or binary, or its encoding cannot be detected.
    """
    text = decode(data)
    grammar = _GRAMMARS.get(language)
    headings = () if grammar is None else tuple(_headings(text, grammar))
    name = "typescript" if language == "tsx" else language
    return Extracted(text=text, title=None, headings=headings, metadata={"language": name}, media_type="text/plain")


def _headings(text: str, grammar: _Grammar) -> Iterator[Heading]:
    source = text.encode()
    place = byte = 0
    lines: set[int] = set()
    for start, level, name in _outline(source, grammar):
        # Of several definitions on one line, as in code that was minified, the first stands for all.
        line = source.rfind(b"\n", 0, start)
        if line not in lines:
            lines.add(line)
            place += len(source[byte:start].decode())
            byte = start
            yield Heading(start=place, level=level, text=name)


def _outline(source: bytes, grammar: _Grammar) -> Iterator[tuple[int, int, str]]:
    """Start in bytes, level and qualified name of each definition, and of what follows one in its container."""
    root = _Open(_Definition(0, len(source), "", is_function=False), 1, _TOP_LEVEL)
    stack = [root]
    for definition in _definitions(source, grammar):
        while stack[-1].definition.end <= definition.start and len(stack) > 1:
            yield from _closed(source, stack)
        within = stack[-1]
        if within.definition.is_function:
            continue
        yield from _rest(source, within, definition.start)
        level = 1 if within is root else within.level + 1
        name = definition.name if within is root else f"{within.name}{grammar.separator}{definition.name}"
        yield definition.start, level, name
        stack.append(_Open(definition, level, name))
    while len(stack) > 1:
        yield from _closed(source, stack)
    yield from _rest(source, root, len(source))


def _closed(source: bytes, stack: list[_Open]) -> Iterator[tuple[int, int, str]]:
    closed = stack.pop()
    yield from _rest(source, closed, closed.definition.end)
    stack[-1].rest = closed.definition.end


def _rest(source: bytes, within: _Open, end: int) -> Iterator[tuple[int, int, str]]:
    """The heading of code that is the container's own again, unless nothing but brackets is left."""
    if within.rest is not None and (own := _OWN_CODE.search(source, within.rest, end)):
        yield own.start(1), within.level, within.name
        within.rest = None


def _definitions(source: bytes, grammar: _Grammar) -> list[_Definition]:
    """In order of start, an outer one before what is in it."""
    from tree_sitter import Language, Parser, Query, QueryCursor

    language = Language(getattr(importlib.import_module(grammar.package), grammar.function)())
    containers = " ".join(f"({kind})" for kind in grammar.containers.split())
    query = Query(language, f"[{grammar.functions}] @function [{containers}] @container")
    captures = QueryCursor(query).captures(Parser(language).parse(source).root_node)
    found = []
    for kind, nodes in captures.items():
        for node in nodes:
            name = " ".join(_name(node).split())[:_MAX_NAME_CHARACTERS]
            if name:
                whole = node
                while whole.parent is not None and whole.parent.type in _WRAPPERS:
                    whole = whole.parent
                found.append(_Definition(_start(whole, source), whole.end_byte, name, kind == "function"))
    return sorted(found, key=lambda definition: (definition.start, -definition.end))


def _start(node: Node, source: bytes) -> int:
    """Where a definition starts with the comments, attributes and decorators above it."""
    start = node
    while (before := start.prev_sibling) is not None and _BEFORE.search(before.type):
        line = source.rfind(b"\n", 0, before.start_byte) + 1
        if source[line : before.start_byte].strip() or start.start_point.row - before.end_point.row > _MAX_ROWS_ABOVE:
            break
        start = before
    return start.start_byte


def _name(node: Node) -> str:
    """The definition's own name; empty where it has none, or is only a mention of one made elsewhere."""
    if node.type in _WITH_BODY and node.child_by_field_name("body") is None:
        return ""
    if node.type == "impl_item":
        trait = _field(node, "trait")
        return f"{trait} for {_field(node, 'type')}" if trait else _field(node, "type")
    name = _field(node, "name")
    if not name and node.parent is not None and node.parent.type == "type_definition":
        return _field(node.parent, "declarator")
    receiver = _RECEIVER.search(_field(node, "receiver"))
    if receiver:
        return f"{receiver[1]}.{name}"
    return name or _declared(node)


def _declared(node: Node) -> str:
    """The name within the declarators of C, which wrap it in what is pointed to and called."""
    declarator = node.child_by_field_name("declarator")
    for _ in range(_MAX_DECLARATORS):
        if declarator is None or declarator.type.endswith(("identifier", "_name")):
            break
        inner = declarator.child_by_field_name("declarator")
        declarator = inner if inner is not None else next(iter(declarator.named_children), None)
    return "" if declarator is None else (declarator.text or b"").decode(errors="replace")


def _field(node: Node, name: str) -> str:
    child = node.child_by_field_name(name)
    return "" if child is None else (child.text or b"").decode(errors="replace")
