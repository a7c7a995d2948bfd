import zipfile
from io import BytesIO

import pytest
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from ingest.load.pptx import load
from rag.errors import DocumentError
from tests.ingest.load.test_archive import zipped
from tests.ingest.load.test_xlsx import changed

DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/"
TITLE_AND_CONTENT, TITLE_ONLY, BLANK = 1, 5, 6


def saved(presentation) -> bytes:
    buffer = BytesIO()
    presentation.save(buffer)
    return buffer.getvalue()


def slide(presentation, title: str, layout: int = TITLE_ONLY):
    added = presentation.slides.add_slide(presentation.slide_layouts[layout])
    if title:
        added.shapes.title.text = title
    return added


def titled():
    presentation = Presentation()
    slide(presentation, "First")
    return presentation


def test_a_slide_is_a_page_that_begins_with_its_title():
    presentation = Presentation()
    body = slide(presentation, "First", TITLE_AND_CONTENT).placeholders[1].text_frame
    body.text = "point"
    body.add_paragraph().text = "another"
    slide(presentation, "", BLANK)
    slide(presentation, "Third")
    extracted = load(saved(presentation))
    assert extracted.text == "First\n\n- point\n- another\n\n\n\nThird"
    assert [extracted.text[start : start + 5] for start in extracted.page_starts] == ["First", "\n\nThi", "Third"]
    assert [(heading.level, heading.text) for heading in extracted.headings] == [(1, "First"), (1, "Third")]
    assert extracted.title == "First"


def test_speaker_notes_follow_their_slide():
    presentation = Presentation()
    slide(presentation, "Talk").notes_slide.notes_text_frame.text = "Say hello.\nThen go on."
    slide(presentation, "Next")
    assert load(saved(presentation)).text == "Talk\n\nNotes:\nSay hello.\nThen go on.\n\nNext"


def test_tables_charts_and_grouped_shapes_are_read():
    presentation = Presentation()
    shown = slide(presentation, "Numbers").shapes
    area = (Inches(1), Inches(1), Inches(4), Inches(2))
    table = shown.add_table(2, 3, *area).table
    for row, texts in enumerate((("Year", "A", "B"), ("2024", "1", "2"))):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(0, 1).merge(table.cell(0, 2))
    chart = CategoryChartData()
    chart.categories = ["Q1", "Q2"]
    chart.add_series("Sales", (4.4, 5))
    shown.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *area, chart)
    shown.add_group_shape().shapes.add_textbox(*area).text_frame.text = "in a group"
    assert load(saved(presentation)).text == (
        "Numbers\n\nYear | A B | A B\n2024 | 1 | 2\n\n| Sales\nQ1 | 4.4\nQ2 | 5\n\nin a group"
    )


@pytest.mark.parametrize("modern", [False, True])
def test_comments_follow_the_notes_of_their_slide_with_their_authors(modern):
    presentation = Presentation()
    slide(presentation, "Talk").notes_slide.notes_text_frame.text = "Say hello."
    slide(presentation, "Next")
    if modern:
        kind, authors = "http://schemas.microsoft.com/office/2018/10/relationships/", "authors"
        people = '<p:authorLst xmlns:p="p188"><p:author id="{1}" name="Ann"/></p:authorLst>'
        body = "<p:txBody><a:p><a:r><a:t>{}</a:t></a:r></a:p></p:txBody>"
        comments = (
            f'<p:cmLst xmlns:p="p188" xmlns:a="{DRAWING}"><p:cm authorId="{{1}}">{body.format("Why?")}<p:replyLst>'
            f'<p:reply authorId="{{2}}">{body.format("Because.")}</p:reply></p:replyLst></p:cm></p:cmLst>'
        )
    else:
        kind, authors = RELATIONS, "commentAuthors"
        people = '<p:cmAuthorLst xmlns:p="p"><p:cmAuthor id="0" name="Ann"/></p:cmAuthorLst>'
        comments = (
            '<p:cmLst xmlns:p="p"><p:cm authorId="0"><p:text>Why?</p:text></p:cm>'
            '<p:cm authorId="7"><p:text>Because.</p:text></p:cm></p:cmLst>'
        )
    data = saved(presentation)
    for part, name, target in (("presentation", authors, "people.xml"), ("slides/slide1", "comments", "/ppt/said.xml")):
        folder, _, stem = f"ppt/{part}".rpartition("/")
        relation = f'<Relationship Id="rX" Type="{kind}{name}" Target="{target}"/></Relationships>'
        data = changed(data, f"{folder}/_rels/{stem}.xml.rels", b"</Relationships>", relation.encode())
    buffer = BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("ppt/people.xml", people)
        archive.writestr("ppt/said.xml", comments)
    assert load(buffer.getvalue()).text == ("Talk\n\nNotes:\nSay hello.\n\nComments:\nAnn: Why?\nBecause.\n\nNext")


def test_slide_numbers_and_footers_are_left_out():
    presentation = Presentation()
    added = slide(presentation, "Only this")
    for placeholder in presentation.slide_layouts[TITLE_ONLY].placeholders:
        if placeholder.placeholder_format.idx >= 10:
            added.shapes.clone_placeholder(placeholder)
            added.shapes[-1].text_frame.text = "around"
    assert len(added.shapes) == 4
    assert load(saved(presentation)).text == "Only this"


def test_a_slide_that_is_listed_twice_or_missing_is_an_empty_page():
    presentation = Presentation()
    slide(presentation, "Once")
    listed = presentation.slides._sldIdLst
    listed.append(listed[0].__copy__())
    extracted = load(saved(presentation))
    assert (extracted.text.strip(), extracted.page_starts) == ("Once", (0, 6))


def test_an_archive_that_is_no_presentation_is_corrupt():
    with pytest.raises(DocumentError, match="corrupt"):
        load(zipped({"ppt/presentation.xml": "<x/>"}))
