import csv
import io

import pytest

from ingest.chunking.passages import make_passages
from ingest.load.csv_table import load
from rag.types import Document, Heading

ROWS = [
    ["Name", "Age", "City"],
    ["Ann", "31", 'Paris, "Île"'],
    ["Bob", "42", "two\nlines"],
    ["Cy; D", "7", "a|b"],
]


def written(rows, **dialect):
    buffer = io.StringIO()
    csv.writer(buffer, **dialect).writerows(rows)
    return buffer.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_every_delimiter_and_encoding_gives_the_same_rows(delimiter, encoding):
    extracted = load(written(ROWS, delimiter=delimiter).encode(encoding))
    assert extracted.text == ('Name | Age | City\nAnn | 31 | Paris, "Île"\nBob | 42 | two lines\nCy; D | 7 | a|b\n')
    assert extracted.headings == (Heading(0, 1, "Name | Age | City"),)
    assert extracted.media_type == ("text/tab-separated-values" if delimiter == "\t" else "text/csv")


def test_rows_are_numbered_as_a_spreadsheet_does_with_empty_rows_and_cells_of_several_lines():
    extracted = load(b'a,b\n"1\n1",x\n,\n\n2,y\n')
    assert [(extracted.text[start:].split("\n")[0], row) for start, row in extracted.row_starts] == [
        ("a | b", 1),
        ("1 1 | x", 2),
        ("2 | y", 5),
    ]


def test_every_passage_of_a_long_table_is_indexed_under_its_header():
    extracted = load(written([["Name", "Age"], *([f"name {n}", str(n)] for n in range(500))]).encode())
    document = Document("d", "v", "s", "t", extracted.text, extracted.headings)
    spans = [(start, start + 50) for start in range(0, 5000, 50)]
    passages = make_passages(document, tenant="t", spans=spans)
    assert {passage.headings for passage in passages} == {("Name | Age",)}


def test_decimal_commas_do_not_divide_cells():
    assert load(b"1,5;2,5\n3,5;4,5\n").text == "1,5 | 2,5\n3,5 | 4,5\n"


def test_a_declared_delimiter_is_taken_and_its_line_counted():
    extracted = load(b"sep=;\nName;Note\nAnn;a,b,c\n")
    assert extracted.text == "Name | Note\nAnn | a,b,c\n"
    assert extracted.row_starts == ((0, 2), (12, 3))


@pytest.mark.parametrize(
    ("source", "header"),
    [
        ("Industry\nSales\nOther\n", "Industry"),
        ("Report 2024\n\nName,Age\nAnn,31\nBob,2\n", "Name | Age"),
        ("1,2\n3,4\n", None),
        ("Name,Name\nAnn,Bob\n", None),
        ("2024-01-01,Ann\n2024-01-02,Bob\n", None),
        ("Name,Age\n", None),
        ("Name,,City\nAnn,3,Rome\n", "Name |  | City"),
    ],
)
def test_the_header_is_a_row_of_names_above_others(source, header):
    headings = load(source.encode()).headings
    assert [heading.text for heading in headings] == ([] if header is None else [header])


def test_a_header_too_wide_to_go_with_every_passage_is_cut_at_a_cell():
    names = [f"column {number}" for number in range(100)]
    extracted = load(written([names, ["x"] * 100]).encode())
    (heading,) = extracted.headings
    assert len(heading.text) <= 304
    assert heading.text.endswith(" | …")
    assert extracted.text.startswith(" | ".join(names) + "\n")


def test_a_quotation_that_is_never_closed_costs_no_rows():
    extracted = load(b'a,b\n1,"x\n2,y\n3,z\n')
    assert extracted.text == 'a | b\n1 | "x\n2 | y\n3 | z\n'
    assert extracted.warnings == (
        "the quotation mark that opens in row 2 is never closed; quotation marks are kept as text",
    )


def test_an_article_in_a_cell_is_no_error():
    article = "word " * 40_000
    assert load(f'title,text\nA,"{article}"\n'.encode()).text == f"title | text\nA | {article.strip()}\n"
