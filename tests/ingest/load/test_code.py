import pytest

from ingest.chunking.sections import sections
from ingest.load.code import LANGUAGES, load, parsers
from rag.types import Document


def outline(language, source):
    """Level, name and line of each heading."""
    extracted = load(source.encode(), language)
    assert extracted.text == source
    return [(heading.level, heading.text, source[heading.start :].split("\n")[0]) for heading in extracted.headings]


PYTHON = '''\
"""Ünïcode."""
import os

# How it is
# done.
@cached
def f(x):
    def inner():
        pass
    return inner


class Outer:
    y = 1

    async def method(self):
        pass

    z = 2
    w = 3

    class Inner:
        def deep(self):
            pass


if __name__ == "__main__":
    f(1)
'''


def test_definitions_are_headings_with_qualified_names_and_what_stands_above_them():
    assert outline("python", PYTHON) == [
        (1, "f", "# How it is"),
        (1, "Outer", "class Outer:"),
        (2, "Outer.method", "async def method(self):"),
        (1, "Outer", "z = 2"),
        (2, "Outer.Inner", "class Inner:"),
        (3, "Outer.Inner.deep", "def deep(self):"),
        (1, "top level", 'if __name__ == "__main__":'),
    ]


def test_sections_of_a_document_are_its_definitions():
    extracted = load(PYTHON.encode(), "python")
    document = Document("d", "v", "s", "t", extracted.text, extracted.headings)
    texts = [PYTHON[section.start : section.end] for section in sections(document)]
    assert texts[1] == "# How it is\n# done.\n@cached\ndef f(x):\n    def inner():\n        pass\n    return inner"
    assert [text.split("\n")[0] for text in texts] == [
        '"""Ünïcode."""',
        "# How it is",
        "class Outer:",
        "async def method(self):",
        "z = 2",
        "class Inner:",
        'if __name__ == "__main__":',
    ]


@pytest.mark.parametrize(
    ("language", "source", "expected"),
    [
        (
            "javascript",
            "/** Doc. */\nexport function a() {\n  function b() {}\n}\nconst c = async () => {\n};\n"
            "class D {\n  m() {}\n}\nmodule.exports = D;\n",
            ["a", "c", "D", "D.m", "top level"],
        ),
        (
            "typescript",
            "export interface I { a: string }\nnamespace N {\n  export class C {\n    m(): void {}\n"
            "  }\n}\nenum E { A }\n"
            "@Dec()\nexport abstract class Z {\n  @Input() x() {}\n}\n",
            ["I", "N", "N.C", "N.C.m", "E", "Z", "Z.x"],
        ),
        ("tsx", "export const App = () => <div>hi</div>;\n", ["App"]),
        (
            "java",
            "package a;\n@Foo\npublic class A {\n  int x;\n  A() {}\n  /** m */\n  void m() {}\n"
            "  enum E { X }\n}\nrecord R() {}\n",
            ["A", "A.A", "A.m", "A.E", "R"],
        ),
        (
            "go",
            "package a\n\n// F does.\nfunc F() {}\n\ntype T struct { a int }\nfunc (t *T) M() {}\n"
            "func (t G[K]) N() {}\n",
            ["F", "T", "T.M", "G.N"],
        ),
        (
            "rust",
            "/// Doc.\n#[derive(Debug)]\nstruct A;\nimpl A {\n    fn new() {}\n}\nimpl Foo for A {\n"
            "    fn foo() {}\n}\n"
            "mod m {\n    fn g() {}\n}\nmacro_rules! mm { () => {} }\n",
            ["A", "A", "A::new", "Foo for A", "Foo for A::foo", "m", "m::g", "mm"],
        ),
        (
            "c",
            "struct s { int a; };\ntypedef struct { int b; } T;\nstatic int *f(struct s a) { return 0; }\n"
            "#if X\n#endif\nvoid g(void)\n{\n}\n",
            ["s", "T", "f", "top level", "g"],
        ),
        (
            "c++",
            "namespace n {\ntemplate <class T>\nclass A {\n  void m() {}\n"
            "  bool operator==(A b) { return true; }\n};\n}\n"
            "void n::A::k() {}\n",
            ["n", "n::A", "n::A::m", "n::A::operator==", "n::A::k"],
        ),
    ],
)
def test_each_grammar_tells_its_definitions(language, source, expected):
    assert [name for _, name, _ in outline(language, source)] == expected


def test_broken_code_has_the_headings_that_can_be_told():
    names = [name for _, name, _ in outline("python", "def f(:\n    pass\nprint 'x'\ndef g(): pass\n")]
    assert names[0] == "f"
    assert names[-1] == "g"


def test_of_definitions_on_one_line_the_first_stands_for_all():
    source = "class A{a(){}b(){}}class B{c(){}}\nfunction d(){}\n"
    assert [name for _, name, _ in outline("javascript", source)] == ["A", "d"]


def test_a_language_without_a_grammar_is_plain_text_with_its_name():
    extracted = load(b"fun main() {}\n", LANGUAGES[".kt"])
    assert extracted.headings == ()
    assert extracted.metadata == {"language": "kotlin"}


def test_every_suffix_has_a_parser_for_its_language():
    languages = {suffix: parse(b"x\n").metadata["language"] for suffix, parse in parsers().items()}
    assert languages == {suffix: "typescript" if name == "tsx" else name for suffix, name in LANGUAGES.items()}
