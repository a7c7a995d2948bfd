import zipfile
from io import BytesIO

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from ingest.load.docx import load
from rag.errors import DocumentError
from tests.ingest.load.test_archive import zipped

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"


def saved(document) -> bytes:
    buffer = BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def package(body: str, **parts: str) -> bytes:
    """A Word file by hand; parts are the content of footnotes, numbering, styles."""
    listed = "".join(f'<Relationship Id="r{name}" Type="{OFFICE}/{name}" Target="{name}.xml"/>' for name in parts)
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": f'<Relationships xmlns="{PACKAGE}"><Relationship Id="r" Type="{OFFICE}/officeDocument" '
            'Target="word/document.xml"/></Relationships>',
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{PACKAGE}">{listed}</Relationships>',
            "word/document.xml": f'<w:document xmlns:w="{WORD}" xmlns:r="{OFFICE}" '
            'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
            'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math">'
            f"<w:body>{body}</w:body></w:document>",
            **{
                f"word/{name}.xml": f'<w:{name} xmlns:w="{WORD}">{content}</w:{name}>'
                for name, content in parts.items()
            },
        }
    )


def paragraph(text: str, properties: str = "") -> str:
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"


def test_headings_paragraphs_and_lists_keep_their_structure():
    document = docx.Document()
    document.core_properties.author = "Jane Roe"
    document.add_heading("Annual Report", level=0)
    document.add_heading("Scope", level=1)
    document.add_paragraph("First paragraph.")
    for style, text in (("List Bullet", "one"), ("List Bullet", "two"), ("List Number", "a"), ("List Number", "b")):
        document.add_paragraph(text, style=style)
    document.add_heading("Detail", level=2)
    extracted = load(saved(document))
    assert extracted.text == ("Annual Report\n\nScope\n\nFirst paragraph.\n\n- one\n- two\n1. a\n2. b\n\nDetail")
    assert extracted.title == "Annual Report"
    assert extracted.metadata["author"] == "Jane Roe"
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (1, "Annual Report"),
        (1, "Scope"),
        (2, "Detail"),
    ]
    assert all(extracted.text.startswith(heading.text, heading.start) for heading in extracted.headings)


@pytest.mark.parametrize(
    ("title", "expected"), [("Plan for 2025", "Plan for 2025"), ("Word Document", "Heading"), ("a.docx", "Heading")]
)
def test_the_title_is_what_a_person_called_it_before_the_first_heading(title, expected):
    document = docx.Document()
    document.core_properties.title = title
    document.add_heading("Heading", level=1)
    assert load(saved(document)).title == expected


def test_a_table_is_a_line_per_row_and_merged_cells_are_repeated():
    document = docx.Document()
    table = document.add_table(rows=3, cols=3)
    for row, texts in enumerate((("Name", "Age", "City"), ("Ann", "5", "Rome"), ("Bob", "6", ""))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(1, 2).merge(table.cell(2, 2))
    table.cell(0, 0).merge(table.cell(0, 1))
    document.add_paragraph("After.")
    assert load(saved(document)).text == "Name Age | Name Age | City\nAnn | 5 | Rome\nBob | 6 | Rome\n\nAfter."


def test_a_table_that_frames_text_is_read_as_text():
    document = docx.Document()
    cells = document.add_table(rows=1, cols=2).rows[0].cells
    cells[0].text = "left"
    cells[1].add_paragraph("Inside", style="Heading 1")
    cells[1].add_table(rows=1, cols=2).rows[0].cells[0].text = "nested"
    extracted = load(saved(document))
    assert extracted.text == "left\n\nInside\n\nnested"
    assert [heading.text for heading in extracted.headings] == ["Inside"]


def test_text_boxes_controls_and_insertions_are_found_and_deletions_are_not():
    box = "<w:txbxContent><w:p><w:r><w:t>in a box</w:t></w:r></w:p></w:txbxContent>"
    body = (
        f"<w:sdt><w:sdtPr/><w:sdtContent>{paragraph('in a control')}</w:sdtContent></w:sdt>"
        "<w:p><w:r><w:t>before </w:t></w:r><w:ins><w:r><w:t>added</w:t></w:r></w:ins>"
        "<w:del><w:r><w:delText>removed</w:delText></w:r></w:del>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
        f"<w:r><mc:AlternateContent><mc:Choice><w:drawing>{box}</w:drawing></mc:Choice>"
        f"<mc:Fallback><w:pict>{box}</w:pict></mc:Fallback></mc:AlternateContent></w:r></w:p>"
    )
    assert load(package(body)).text == "in a control\n\nbefore added\n\nin a box"


def test_footnotes_stand_at_the_end_once_even_if_they_refer_to_themselves():
    reference = '<w:r><w:footnoteReference w:id="{}"/></w:r>'
    notes = (
        f'<w:footnote w:id="7"><w:p><w:r><w:t>first</w:t></w:r>{reference.format(7)}</w:p></w:footnote>'
        '<w:footnote w:id="3"><w:p><w:r><w:t>second</w:t></w:r></w:p></w:footnote>'
    )
    body = "".join(f"<w:p><w:r><w:t>Text</w:t></w:r>{reference.format(note)}</w:p>" for note in (7, 3, 7))
    assert load(package(body, footnotes=notes)).text == (
        "Text[^1]\n\nText[^2]\n\nText[^1]\n\n[^1]: first[^1]\n[^2]: second"
    )


def test_numbers_are_counted_as_word_counts_them():
    levels = (
        '<w:lvl w:ilvl="0"><w:start w:val="3"/><w:numFmt w:val="upperRoman"/><w:lvlText w:val="%1."/></w:lvl>'
        '<w:lvl w:ilvl="1"><w:numFmt w:val="lowerLetter"/><w:lvlText w:val="%1.%2)"/></w:lvl>'
    )
    numbering = (
        f'<w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>'
        '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
        '<w:num w:numId="2"><w:abstractNumId w:val="0"/>'
        '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="9"/></w:lvlOverride></w:num>'
    )
    items = ((1, 0), (1, 1), (1, 1), (1, 0), (1, 1), (2, 0), (1, 0), (5, 0))
    body = "".join(
        paragraph("x", f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>')
        for number, level in items
    )
    lines = load(package(body, numbering=numbering)).text.split("\n")
    assert lines == ["III. x", "III.a) x", "III.b) x", "IV. x", "IV.a) x", "IX. x", "X. x", "", "x"]


def test_a_formula_is_written_as_latex():
    fraction = "<m:f><m:num><m:r><m:t>a</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f>"
    power = "<m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup>"
    body = f"<w:p><w:r><w:t>So </w:t></w:r><m:oMath>{power}<m:r><m:t>=</m:t></m:r>{fraction}</m:oMath></w:p>"
    assert load(package(body)).text == r"So $x^{2}=\frac{a}{2}$"


def test_a_heading_may_be_one_by_the_style_its_style_is_made_from():
    styles = (
        '<w:style w:styleId="A"><w:name w:val="heading 2"/></w:style>'
        '<w:style w:styleId="B"><w:name w:val="Mine"/><w:basedOn w:val="A"/></w:style>'
        '<w:style w:styleId="C"><w:name w:val="Loop"/><w:basedOn w:val="C"/></w:style>'
    )
    body = paragraph("Part", '<w:pStyle w:val="B"/>') + paragraph("Text", '<w:pStyle w:val="C"/>')
    assert [(heading.level, heading.text) for heading in load(package(body, styles=styles)).headings] == [(2, "Part")]


def test_the_strict_variant_is_read_like_the_transitional_one():
    document = docx.Document()
    document.add_heading("Scope", level=1)
    buffer = BytesIO()
    with zipfile.ZipFile(BytesIO(saved(document))) as source, zipfile.ZipFile(buffer, "w") as strict:
        for name in source.namelist():
            content = source.read(name)
            content = content.replace(WORD.encode(), b"http://purl.oclc.org/ooxml/wordprocessingml/main")
            strict.writestr(
                name, content.replace(OFFICE.encode(), b"http://purl.oclc.org/ooxml/officeDocument/relationships")
            )
    extracted = load(buffer.getvalue())
    assert (extracted.text, len(extracted.headings)) == ("Scope", 1)


def test_a_package_without_a_document_is_corrupt():
    with pytest.raises(DocumentError, match="corrupt"):
        load(zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": "<x/>"}))
    with pytest.raises(DocumentError, match="no body"):
        load(zipped(_without_body()))


def _without_body() -> dict[str, bytes]:
    with zipfile.ZipFile(BytesIO(package(""))) as source:
        members = {name: source.read(name) for name in source.namelist()}
    members["word/document.xml"] = b"<document/>"
    return members


def test_a_line_of_symbols_keeps_its_characters():
    document = docx.Document()
    run = document.add_paragraph().add_run("tab")
    run.add_tab()
    run.add_text("no\u00adbreak\u00a0here")
    run._r.append(parse_xml(f"<w:noBreakHyphen {nsdecls('w')}/>"))
    assert load(saved(document)).text == "tab\tnobreak here-"


def test_broken_properties_take_nothing_from_the_text():
    document = docx.Document()
    document.add_heading("Scope", level=1)
    with zipfile.ZipFile(BytesIO(saved(document))) as source:
        members = {name: source.read(name) for name in source.namelist()}
    assert members["docProps/core.xml"]
    extracted = load(zipped({**members, "docProps/core.xml": b"<broken"}))
    assert (extracted.text, extracted.title, extracted.metadata) == ("Scope", "Scope", {})


def test_a_bomb_of_entities_in_a_word_file_is_refused():
    with zipfile.ZipFile(BytesIO(package(paragraph("text")))) as source:
        members = {name: source.read(name) for name in source.namelist()}
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + members["word/document.xml"]
    with pytest.raises(DocumentError, match=r"word/document\.xml declares XML entities"):
        load(zipped({**members, "word/document.xml": bomb}))
