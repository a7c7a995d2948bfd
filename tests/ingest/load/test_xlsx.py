import zipfile
from bisect import bisect_right
from datetime import date, datetime, time, timedelta
from io import BytesIO
from itertools import groupby, product
from pathlib import Path

import openpyxl
import pytest
from openpyxl.comments import Comment
from openpyxl.styles import Font

from ingest.load import sheets
from ingest.load.xlsx import load
from rag.errors import DocumentError

FORMATS = Path(__file__).parents[3].parent / "shared/data/formats/docling/xlsx/sources"


def workbook(**named: list[list]) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in named.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    return book


def saved(book: openpyxl.Workbook) -> bytes:
    buffer = BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def changed(data: bytes, part: str, old: bytes, new: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            assert name != part or old in content
            target.writestr(name, content.replace(old, new) if name == part else content)
    return buffer.getvalue()


def test_a_sheet_is_a_page_whose_header_row_is_a_heading():
    extracted = load(saved(workbook(People=[["Name", "Age"], ["Ann", 5], ["Bob", 6.5]], Empty=[], Last=[["x"]])))
    assert extracted.text == "People\n\nName | Age\nAnn | 5\nBob | 6.5\n\n\n\nLast\n\nx"
    assert extracted.page_starts == (0, 38, 40)
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (1, "People"),
        (2, "Name | Age"),
        (1, "Last"),
    ]
    assert extracted.title is None


def test_rows_carry_the_numbers_the_program_shows():
    book = workbook(Data=[[], ["Title of it"], [], ["k", "v"], ["a", 1], [], ["b", 2]])
    extracted = load(saved(book))
    found = [(number, extracted.text[start:].split("\n")[0]) for start, number in extracted.row_starts]
    assert found == [(2, "Title of it"), (4, "k | v"), (5, "a | 1"), (7, "b | 2")]
    assert [heading.text for heading in extracted.headings] == ["Data", "k | v"]


def test_a_second_table_has_its_own_header_and_data_after_a_gap_does_not():
    book = workbook(Data=[["k", "v"], ["a", 1], [], ["b", 2], [], ["x", "y", "z"], ["p", "q", 3]])
    assert [heading.text for heading in load(saved(book)).headings] == ["Data", "k | v", "x | y | z"]


def test_a_bold_header_of_text_above_text_is_told_from_a_table_that_goes_on():
    book = workbook(Data=[["k", "v"], ["a", "b"], [], ["c", "d"], [], ["h", "i"], ["e", "f"]])
    for cell in (*book["Data"][1], *book["Data"][6]):
        cell.font = Font(bold=True)
    assert [heading.text for heading in load(saved(book)).headings] == ["Data", "k | v", "h | i"]


def test_years_label_columns_and_numbers_do_not():
    labelled = load(saved(workbook(Data=[["City", 2023, 2024], ["Rome", 1, 2]])))
    plain = load(saved(workbook(Data=[["Rome", 1, 2], ["Oslo", 3, 4]])))
    assert [heading.text for heading in labelled.headings] == ["Data", "City | 2023 | 2024"]
    assert [heading.text for heading in plain.headings] == ["Data"]


def test_dates_numbers_and_truth_values_are_written_plainly():
    row = [
        date(2024, 2, 29),
        datetime.fromisoformat("2024-02-29T13:30"),
        time(7, 5),
        timedelta(hours=30, minutes=1),
        0.1 + 0.2,
        1e20,
        -7,
        True,
        "a\nb",
    ]
    assert load(saved(workbook(Data=[row]))).text == (
        "Data\n\n2024-02-29 | 2024-02-29 13:30:00 | 07:05:00 | 30:01:00 | 0.3 | 1e+20 | -7 | TRUE | a b"
    )


def test_the_days_before_the_leap_day_that_never_was_are_right():
    book = workbook(Data=[[1, 59, 61]])
    for cell in book["Data"][1]:
        cell.number_format = "yyyy-mm-dd"
    assert load(saved(book)).text.endswith("1900-01-01 | 1900-02-28 | 1900-03-01")


def test_a_workbook_that_counts_from_1904_gives_the_same_dates():
    book = workbook(Data=[[date(2024, 2, 29)]])
    book.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    assert load(saved(book)).text == "Data\n\n2024-02-29"


def test_a_formula_gives_the_value_it_last_had():
    book = workbook(Data=[["sum", "=1+2"]])
    data = changed(saved(book), "xl/worksheets/sheet1.xml", b"<v></v>", b"<v>3</v>")
    assert load(data).text == "Data\n\nsum | 3"


def test_merged_cells_are_repeated_and_notes_follow_the_rows():
    book = workbook(Data=[["Title"], ["both", None, "c"], [1, 2, 3], ["long", 4, None], [None, 5, None]])
    for merged in ("A1:C1", "A2:B2", "A4:A5", "C3:C5"):
        book["Data"].merge_cells(merged)
    book["Data"]["C2"].comment = Comment("checked", "Ann")
    assert load(saved(book)).text == (
        "Data\n\nTitle\nboth | both | c\n1 | 2 | 3\nlong | 4 | 3\nlong | 5 | 3\n\nC2 (Ann): checked"
    )


def test_a_merged_label_reaches_over_a_blank_row():
    book = workbook(Data=[["k", "v"], ["North", 1], [], [None, 2]])
    book["Data"].merge_cells("A2:A4")
    assert load(saved(book)).text == "Data\n\nk | v\nNorth | 1\n\nNorth | 2"


def test_repeated_labels_stay_in_proportion_to_the_workbook():
    rows = [["x" * 200] + [None] * 19, ["y"] * 20, []] * 300
    book = workbook(Data=rows)
    for number in range(1, len(rows), 3):
        book["Data"].cell(number, 21, "z")
        book["Data"].merge_cells(start_row=number, end_row=number, start_column=1, end_column=20)
    own = 300 * (200 + 21)
    assert len(load(saved(book)).text) < 10_000 + 6 * own + 300 * 22 * 3


def test_a_table_beside_the_rows_of_another_is_read_after_it():
    rows = [["k", "v"], ["a", 1], ["b", 2, None, "name", "age"], ["c", 3, None, "Ann", 5], ["d", 4, None, "Bob", 6]]
    extracted = load(saved(workbook(Data=rows)))
    assert extracted.text == "Data\n\nk | v\na | 1\nb | 2\nc | 3\nd | 4\n\nname | age\nAnn | 5\nBob | 6"
    assert [heading.text for heading in extracted.headings] == ["Data", "k | v", "name | age"]
    assert [number for _, number in extracted.row_starts] == [1, 2, 3, 4, 5, 3, 4, 5]


@pytest.mark.parametrize(
    "rows",
    [
        [["item", "unit", None, 2023, 2024], ["gas", "m3", None, 5, 6], ["oil", "t", None, 7, 8]],
        [[None, None, None, "plan", "actual"], ["item", "unit", None, "Q1", "Q1"], ["gas", "m3", None, 5, 6]],
        [["item", None, "cost", "note"], ["gas", None, 5, "x"], ["oil", None, 6, "y"]],
    ],
)
def test_a_gap_between_columns_does_not_part_labels_from_their_values(rows):
    extracted = load(saved(workbook(Data=rows)))
    lines = [" ".join(str(value) for value in row if value is not None) for row in rows]
    assert [" ".join(line.replace("|", " ").split()) for line in extracted.text.split("\n")[2:]] == lines


def test_replies_in_a_thread_are_notes_with_the_names_of_their_authors():
    book = workbook(Data=[["a"]])
    book["Data"]["A1"].comment = Comment("[Threaded comment]\n\nComment:\n  Why?", "tc={1}")
    relation = b'<Relationship Type="http://schemas.microsoft.com/office/2017/10/relationships/'
    data = changed(
        saved(book),
        "xl/_rels/workbook.xml.rels",
        b"</Relationships>",
        relation + b'person" Target="persons/person.xml" Id="rP"/></Relationships>',
    )
    data = changed(
        data,
        "xl/worksheets/_rels/sheet1.xml.rels",
        b"</Relationships>",
        relation + b'threadedComment" Target="../threads.xml" Id="rT"/></Relationships>',
    )
    buffer = BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("xl/persons/person.xml", '<personList><person displayName="Ann" id="1"/></personList>')
        archive.writestr(
            "xl/threads.xml",
            '<ThreadedComments><threadedComment ref="A1" personId="1"><text>Why?</text></threadedComment>'
            '<threadedComment ref="A1" personId="2"><text>Because.</text></threadedComment></ThreadedComments>',
        )
    assert load(buffer.getvalue()).text == "Data\n\na\n\nA1 (Ann): Why?\nA1: Because."


def test_a_cell_at_the_far_end_of_the_sheet_costs_nothing():
    book = workbook(Data=[["near"]])
    book["Data"]["XFD1048576"] = "far"
    extracted = load(saved(book))
    assert extracted.text == "Data\n\nnear\n\nfar"
    assert [number for _, number in extracted.row_starts] == [1, 1_048_576]


def test_a_sheet_with_hardly_a_place_filled_stays_as_small_as_its_cells():
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("Data")
    for number in range(300):
        sheet.append([None] * (number * 50) + ["x", "y"])
    text = load(saved(book)).text
    assert len(text) < 3000
    assert text.count("x | y") == 300


def test_a_workbook_with_too_many_cells_is_refused(monkeypatch):
    monkeypatch.setattr(sheets, "MAX_CELLS", 10)
    with pytest.raises(DocumentError, match="over 10 cells"):
        load(saved(workbook(A=[[1] * 6], B=[[1] * 6])))


def test_one_long_string_in_many_cells_is_refused(monkeypatch):
    monkeypatch.setattr(sheets, "MAX_CHARACTERS", 1000)
    with pytest.raises(DocumentError, match="1,000 characters"):
        load(saved(workbook(A=[["long " * 50] * 5])))


def test_a_long_header_is_cut_between_cells():
    header = [f"column number {number}" for number in range(100)]
    heading = load(saved(workbook(A=[header, ["x"] * 100]))).headings[1]
    assert len(heading.text) <= 300
    assert heading.text.endswith("column number 15")


@pytest.mark.skipif(not FORMATS.is_dir(), reason=f"no published files at {FORMATS}")
@pytest.mark.parametrize("name", ["xlsx_01.xlsx", "xlsx_06_edge_cases_.xlsx", "xlsx_07_gap_tolerance_.xlsx"])
def test_rows_hold_what_another_reader_finds_in_them(name):
    data = (FORMATS / name).read_bytes()
    extracted = load(data)
    ours: dict[tuple[int, int], list[str]] = {}
    for start, number in extracted.row_starts:
        page = bisect_right(extracted.page_starts, start)
        ours.setdefault((page, number), []).extend(said(extracted.text[start:].split("\n")[0].split("|")))
    theirs = {}
    for page, sheet in enumerate(openpyxl.load_workbook(BytesIO(data), data_only=True).worksheets, start=1):
        own = {
            row
            for row, values in enumerate(sheet.iter_rows(values_only=True), start=1)
            if any(map(str, filter(None, values)))
        }
        for merged in list(sheet.merged_cells.ranges):
            value = sheet.cell(merged.min_row, merged.min_col).value
            sheet.unmerge_cells(merged.coord)
            for row, column in product(
                range(merged.min_row, merged.max_row + 1), range(merged.min_col, merged.max_col + 1)
            ):
                sheet.cell(row, column, value)
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            if number in own:
                theirs[page, number] = said(str(value) for value in row if value is not None)
    assert ours == theirs


def said(cells) -> list[str]:
    """The words of cells, one that repeats its neighbour left out."""
    texts = [" ".join(cell.split()) for cell in cells]
    return [text for text, _ in groupby(filter(None, texts))]
