import pytest

from ingest.load.odf import load
from rag.errors import DocumentError
from tests.ingest.load.test_archive import zipped

NAMES = " ".join(
    f'xmlns:{prefix}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for prefix, name in (
        ("office", "office"),
        ("text", "text"),
        ("table", "table"),
        ("draw", "drawing"),
        ("style", "style"),
        ("presentation", "presentation"),
        ("meta", "meta"),
    )
)
NAMES += ' xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:dc="http://purl.org/dc/elements/1.1/"'
NUMBERED = (
    '<text:list-style style:name="N"><text:list-level-style-number text:level="1" style:num-format="1" '
    'style:num-suffix="."/><text:list-level-style-number text:level="2" style:num-format="a" style:num-suffix=")" '
    'text:display-levels="1"/></text:list-style>'
)


def document(kind: str, body: str, styles: str = "", **members: str) -> bytes:
    return zipped(
        {
            "mimetype": f"application/vnd.oasis.opendocument.{kind}",
            "content.xml": f"<office:document-content {NAMES}><office:automatic-styles>{styles}"
            f"</office:automatic-styles><office:body><office:{kind}>{body}</office:{kind}></office:body>"
            "</office:document-content>",
            **{name.replace("__", "/").replace("_", "."): content for name, content in members.items()},
        }
    )


def item(*blocks: str) -> str:
    return f"<text:list-item>{''.join(blocks)}</text:list-item>"


def p(text: str) -> str:
    return f"<text:p>{text}</text:p>"


def row(*cells: str) -> str:
    return (
        "<table:table-row>"
        + "".join(f"<table:table-cell>{p(cell)}</table:table-cell>" for cell in cells)
        + ("</table:table-row>")
    )


def value(kind: str, shown: str, **attributes: str) -> str:
    stored = "".join(f' office:{name.replace("_", "-")}="{text}"' for name, text in attributes.items())
    return f'<table:table-cell office:value-type="{kind}"{stored}>{p(shown)}</table:table-cell>'


def test_headings_lists_tables_and_boxes_keep_their_structure():
    deep = f"<text:list>{item(p('deep'))}</text:list>"
    body = (
        '<text:h text:outline-level="1">Scope</text:h>'
        "<text:p>A<text:s text:c='2'/>word<text:line-break/>and <text:span>more</text:span>"
        "<draw:frame><draw:text-box><text:p>boxed</text:p></draw:text-box></draw:frame>.</text:p>"
        f'<text:list text:style-name="N">{item(p("one"), deep)}'
        f"{item(p('two'))}</text:list>"
        f"<text:list>{item(p('bullet'))}</text:list>"
        f"<table:table><table:table-header-rows>{row('Name', 'Age')}</table:table-header-rows>{row('Ann', '5')}"
        "</table:table>"
        '<text:h text:outline-level="2">End</text:h>'
    )
    extracted = load(document("text", body, NUMBERED))
    assert extracted.text == (
        "Scope\n\nA  word\nand more.\n\nboxed\n\n1. one\na) deep\n2. two\n- bullet\n\nName | Age\nAnn | 5\n\nEnd"
    )
    assert [(heading.level, heading.text) for heading in extracted.headings] == [(1, "Scope"), (2, "End")]
    assert extracted.title == "Scope"
    assert extracted.media_type == "application/vnd.oasis.opendocument.text"


def test_a_list_that_goes_on_keeps_counting():
    one = f'<text:list text:style-name="N">{item(p("x"))}</text:list>'
    more = f'<text:list text:style-name="N" text:continue-numbering="true">{item(p("y"))}</text:list>'
    assert load(document("text", one + p("between") + more, NUMBERED)).text == "1. x\n\nbetween\n\n2. y"


def test_the_title_style_and_the_properties_say_the_title():
    styles = '<style:style style:name="P1" style:family="paragraph" style:parent-style-name="Title"/>'
    body = '<text:h text:outline-level="1">Part</text:h><text:p text:style-name="P1">The Title</text:p>'
    meta = (
        f"<office:document-meta {NAMES}><office:meta><dc:title>{{}}</dc:title><dc:creator>Last</dc:creator>"
        "<meta:initial-creator>First</meta:initial-creator><meta:keyword>a</meta:keyword><meta:keyword>b</meta:keyword>"
        "</office:meta></office:document-meta>"
    )
    extracted = load(document("text", body, styles, meta_xml=meta.format("Plan for 2025")))
    assert (extracted.title, extracted.metadata) == ("Plan for 2025", {"author": "First", "keywords": ["a", "b"]})
    assert load(document("text", body, styles, meta_xml=meta.format("Untitled 1"))).title == "The Title"


def test_notes_stand_at_the_end_and_comments_and_deletions_nowhere():
    note = (
        "<text:note><text:note-citation>1</text:note-citation>"
        "<text:note-body><text:p>said</text:p></text:note-body></text:note>"
    )
    body = (
        f"<text:tracked-changes><text:p>gone</text:p></text:tracked-changes>"
        f"<text:p>Text{note}<office:annotation><text:p>comment</text:p></office:annotation> on</text:p>"
    )
    assert load(document("text", body)).text == "Text[^1] on\n\n[^1]: said"


def spanning(text: str, rows: int, columns: int) -> str:
    return (
        f"<table:table-cell table:number-rows-spanned='{rows}' table:number-columns-spanned='{columns}'>{p(text)}"
        f"</table:table-cell>{'<table:covered-table-cell/>' * (columns - 1)}"
    )


def test_merged_cells_are_repeated_in_tables_and_sheets_and_a_title_is_not():
    body = (
        f"<table:table table:name='T'><table:table-row>{spanning('Sales', 1, 3)}</table:table-row>"
        f"<table:table-row>{spanning('North', 3, 1)}{spanning('Year', 1, 2)}</table:table-row>"
        + "".join(
            f"<table:table-row><table:covered-table-cell/>{cells}</table:table-row>"
            for cells in (
                f"<table:table-cell>{p('2023')}</table:table-cell><table:table-cell>{p('2024')}</table:table-cell>",
                f"<table:table-cell>{p('5')}</table:table-cell><table:table-cell>{p('6')}</table:table-cell>",
            )
        )
        + "</table:table>"
    )
    expected = "Sales\nNorth | Year | Year\nNorth | 2023 | 2024\nNorth | 5 | 6"
    assert load(document("text", body)).text == expected
    assert load(document("spreadsheet", body)).text == f"T\n\n{expected}"


def test_notes_of_cells_and_comments_on_slides_follow_with_their_authors():
    note = f"<office:annotation><dc:creator>Ann</dc:creator>{p('checked')}</office:annotation>"
    sheet = (
        f"<table:table table:name='T'>{row('a')}<table:table-row table:number-rows-repeated='3'/><table:table-row>"
        f"<table:table-cell/><table:table-cell>{note}{p('5')}</table:table-cell></table:table-row></table:table>"
    )
    assert load(document("spreadsheet", sheet)).text == "T\n\na\n\n5\n\nB5 (Ann): checked"
    slide = f"<draw:page><draw:custom-shape>{p('shape')}</draw:custom-shape>{note}</draw:page>"
    assert load(document("presentation", slide)).text == "shape\n\nComments:\nAnn: checked"


def test_a_slide_is_a_page_with_its_title_and_notes():
    def frame(text: str, kind: str) -> str:
        return f'<draw:frame presentation:class="{kind}"><draw:text-box>{p(text)}</draw:text-box></draw:frame>'

    notes = f"<presentation:notes>{frame('Say hello.', 'notes')}</presentation:notes>"
    shape = f"<draw:custom-shape>{p('shape')}</draw:custom-shape>"
    body = (
        f"<draw:page>{frame('body', 'outline')}{frame('First', 'title')}{frame('3', 'page-number')}{notes}</draw:page>"
        f"<draw:page><draw:g>{shape}</draw:g></draw:page>"
    )
    extracted = load(document("presentation", body))
    assert extracted.text == "First\n\nbody\n\nNotes:\nSay hello.\n\nshape"
    assert [extracted.text[start:].split("\n")[0] for start in extracted.page_starts] == ["First", "shape"]
    assert [heading.text for heading in extracted.headings] == ["First"]


def test_a_chart_gives_its_data_once():
    chart = (
        f'<office:document-content {NAMES} xmlns:chart="urn:oasis:names:tc:opendocument:xmlns:chart:1.0"><office:body>'
        f"<office:chart><chart:chart><chart:title>{p('Sales')}</chart:title><table:table>{row('', 'A')}{row('Q1', '3')}"
        "</table:table></chart:chart></office:chart></office:body></office:document-content>"
    )
    shown = '<text:p><draw:frame><draw:object xlink:href="./Object 1"/></draw:frame></text:p>'
    extracted = load(document("text", shown * 2, **{"Object 1__content_xml": chart}))
    assert extracted.text == "Sales\n\n| A\nQ1 | 3"


def test_a_sheet_is_a_page_with_real_row_numbers_and_stored_values():
    body = (
        '<table:table table:name="Data"><table:table-row table:number-rows-repeated="3"/>'
        + row("k", "v")
        + "<table:table-row>"
        + value("string", "a")
        + value("float", "0,30", value="0.3")
        + "</table:table-row><table:table-row table:number-rows-repeated='2'>"
        + value("date", "29.2.24", date_value="2024-02-29T00:00:00")
        + value("time", "7:05", time_value="PT07H05M00S")
        + value("boolean", "WAHR", boolean_value="true")
        + '</table:table-row><table:table-row table:number-rows-repeated="1048000"><table:table-cell '
        'table:number-columns-repeated="16384"/></table:table-row></table:table>'
        f'<table:table table:name="Other">{row("x")}</table:table>'
    )
    extracted = load(document("spreadsheet", body))
    assert extracted.text == (
        "Data\n\nk | v\na | 0.3\n2024-02-29 | 07:05:00 | TRUE\n2024-02-29 | 07:05:00 | TRUE\n\nOther\n\nx"
    )
    assert [number for _, number in extracted.row_starts] == [4, 5, 6, 7, 1]
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (1, "Data"),
        (2, "k | v"),
        (1, "Other"),
    ]
    assert (extracted.title, len(extracted.page_starts)) == (None, 2)


def test_a_cell_that_claims_to_fill_the_sheet_is_refused():
    body = (
        '<table:table table:name="Data"><table:table-row table:number-rows-repeated="999999999">'
        '<table:table-cell table:number-columns-repeated="999999999"><text:p>x</text:p></table:table-cell>'
        "</table:table-row></table:table>"
    )
    with pytest.raises(DocumentError, match="too large"):
        load(document("spreadsheet", body))


def test_a_locked_document_is_reported_as_password_protected():
    manifest = "<manifest><file-entry><encryption-data/></file-entry></manifest>"
    with pytest.raises(DocumentError, match="password-protected"):
        load(zipped({"mimetype": "", "content.xml": b"\x01\x02", "META-INF/manifest.xml": manifest}))


def test_entities_in_the_content_are_refused():
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    with pytest.raises(DocumentError, match="entities"):
        load(zipped({"content.xml": bomb}))
