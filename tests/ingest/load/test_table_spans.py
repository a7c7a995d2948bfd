import pytest

from ingest.load.table_spans import PlacedCell, PlacedRows, SpannedRows, span


@pytest.mark.parametrize(("written", "expected"), [(None, 1), ("", 1), ("3", 3), (" 2px", 2), ("0", 0), ("x", 1)])
def test_spans_are_read_as_browsers_do(written, expected):
    assert span(written) == expected


def test_a_span_of_zero_rows_reaches_to_the_end_of_the_group():
    rows = SpannedRows()
    assert rows.row([("a", 0, 1), ("b", 1, 1)]) == ["a", "b"]
    assert rows.row([("c", 1, 1)]) == rows.row([("c", 1, 1)]) == ["a", "c"]
    rows.end_group()
    assert rows.row([("d", 1, 1)]) == ["d"]


def test_a_cell_below_missing_ones_keeps_its_column():
    rows = SpannedRows()
    rows.row([("a", 1, 1), ("b", 1, 1), ("c", 2, 1)])
    assert rows.row([("d", 1, 1)]) == ["d", "", "c"]


def test_content_is_not_repeated_as_a_label_is():
    rows = SpannedRows()
    long = "word " * 50
    assert rows.row([(long, 2, 2), ("x", 1, 1)]) == [long, "", "x"]
    assert rows.row([("y", 1, 1)]) == ["", "", "y"]


def test_a_row_without_words_of_its_own_is_none():
    rows = SpannedRows()
    rows.row([("a", 3, 1), ("b", 1, 1)])
    assert rows.row([("", 1, 1)]) == rows.row([]) == []


def test_repetition_stays_in_proportion_to_the_source():
    rows = SpannedRows()
    written = [[("x" * 200, 0, 20)] * 50] + [[("y", 1, 1)]] * 5000
    seen = sum(len(cell) + 3 for row in written for cell in rows.row(row))
    assert seen < 10_000 + 6 * sum(len(text) + 3 for row in written for text, *_ in row)


def placed(*rows: dict[int, PlacedCell]) -> list[dict[int, str]]:
    return PlacedRows().read(enumerate(rows))


def test_a_placed_label_stands_in_every_row_and_column_that_has_words():
    label, cell = PlacedCell("a", 3, 6), PlacedCell("x")
    assert placed({0: label, 9: cell}, {2: PlacedCell(""), 8: cell, 9: cell}, {}, {4: cell}) == [
        {0: "a", 4: "a", 9: "x"},
        {0: "a", 4: "a", 8: "x", 9: "x"},
        {},
        {4: "x"},
    ]


def test_a_placed_cell_across_the_table_is_its_title_and_text_is_no_label():
    row = {column: PlacedCell("x") for column in range(3)}
    assert placed({0: PlacedCell("title", 1, 3)}, row)[0] == {0: "title"}
    assert placed({1: PlacedCell("part", 1, 2)}, row)[0] == {1: "part", 2: "part"}
    long = "word " * 50
    assert placed({0: PlacedCell(long, 1, 2), 2: PlacedCell("x")}, row)[0] == {0: long, 2: "x"}
    wide = {column: PlacedCell("x") for column in range(30)}
    assert placed({0: PlacedCell("a", 2, 25), 29: PlacedCell("x")}, wide)[0] == {0: "a", 29: "x"}


def test_cells_that_claim_the_same_place_keep_their_own_words():
    cell = PlacedCell("b", 2, 2)
    assert placed({0: PlacedCell("a", 3, 3), 1: cell, 2: cell}, {1: PlacedCell("c")}, {3: PlacedCell("d")}) == [
        {0: "a", 1: "b", 2: "b", 3: "b"},
        {0: "a", 1: "c", 2: "b", 3: "b"},
        {0: "a", 3: "d"},
    ]


def test_repetition_of_placed_cells_stays_in_proportion_for_all_tables_of_a_sheet():
    sheet = PlacedRows()
    label, cell = PlacedCell("x" * 200, 10_000_000, 20), PlacedCell("y")
    first = {**dict.fromkeys(range(50), label), 60: cell}
    seen = sum(
        len(text) + 3
        for row in sheet.read((n, first if n == 0 else {60: cell}) for n in range(5000))
        for text in row.values()
    )
    for _ in range(5000):
        rows = sheet.apart().read([(0, {0: label, 20: cell}), (1, dict.fromkeys(range(20), cell))])
        seen += sum(len(text) + 3 for row in rows for text in row.values())
    own = 50 * 203 + 5000 * 4 + 5000 * (203 + 21 * 4)
    assert seen < 10_000 + 6 * own
