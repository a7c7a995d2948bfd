from io import BytesIO

from reportlab.pdfgen.canvas import Canvas

from ingest.load.pdf import load

LEFT = [f"The left column of line {number} is long enough" for number in range(8)]
RIGHT = [f"and the right one of line {number} is as long, too" for number in range(8)]


def page(*strings: tuple[float, float, str]) -> str:
    """The text of a page on which strings are written at their places, in this order."""
    buffer = BytesIO()
    canvas = Canvas(buffer)
    for x, y, string in strings:
        canvas.setFont("Helvetica", 10)
        canvas.drawString(x, y, string)
    canvas.save()
    return load(buffer.getvalue()).text


def down(x: float, top: float, lines: list[str]) -> list[tuple[float, float, str]]:
    return [(x, top - 12 * number, line) for number, line in enumerate(lines)]


def across(left, right):
    return [string for pair in zip(left, right, strict=True) for string in pair]


def test_two_columns_are_read_one_after_the_other_however_they_are_written():
    left, right = down(50, 700, LEFT), down(320, 700, RIGHT)
    expected = " ".join(LEFT + RIGHT).split()
    assert page(*left, *right).split() == expected
    assert page(*across(left, right)).split() == expected


def test_text_above_and_below_two_columns_stays_there():
    columns = across(down(50, 700, LEFT), down(320, 700, RIGHT))
    above, below = "A title over both of the columns, as wide as the page is with both of them", "And a note below"
    text = page((50, 740, above), *columns, (50, 500, below))
    assert text.split() == [*above.split(), *" ".join(LEFT + RIGHT).split(), *below.split()]


def test_rows_of_a_table_are_lines_with_bars_between_the_cells():
    rows = [("Name", "Amount", "Remark"), ("Apples", "12 kg", "red"), ("Pears", "3 kg", "none left")]
    strings = [
        (x, 700 - 20 * number, cell)
        for number, row in enumerate(rows)
        for x, cell in zip((50, 200, 350), row, strict=True)
    ]
    assert page(*strings) == "Name | Amount | Remark\nApples | 12 kg | red\nPears | 3 kg | none left"


def test_a_table_of_two_columns_is_one_from_three_rows_on():
    pairs = across(down(50, 700, ["Colour", "Weight", "Price"]), down(200, 700, ["red", "2 kg", "3 EUR"]))
    assert page(*pairs) == "Colour | red\nWeight | 2 kg\nPrice | 3 EUR"
    assert page(*pairs[:4]) == "Colour red\nWeight 2 kg"


def test_numbers_before_items_are_no_column():
    items = across(down(50, 700, ["1.", "2.", "3."]), down(90, 700, ["one thing", "another", "a third"]))
    assert page(*items) == "1. one thing\n2. another\n3. a third"


def test_a_table_written_after_the_text_stands_where_the_text_leaves_room_for_it():
    before, after = down(50, 700, ["Text before the table.", "More of it."]), down(50, 500, ["Text after the table."])
    table = [(x, y, f"cell {x} {y}") for y in (620, 600) for x in (50, 200, 350)]
    text = page(*before, *after, *table)
    assert text.index("More of it") < text.index("cell 50 620 | cell 200 620") < text.index("Text after")


def test_a_gap_between_paragraphs_is_a_blank_line():
    first, second = ["The first paragraph has", "two lines."], ["The second paragraph has", "as many."]
    text = page(*down(50, 700, first), *down(50, 660, second))
    assert text.split("\n\n") == ["The first paragraph has\ntwo lines.", "The second paragraph has\nas many."]
    # A sentence goes on over a gap, as around a formula.
    assert "\n\n" not in page(
        *down(50, 700, ["The sentence begins", "and, as it"]), *down(50, 660, ["goes on", "ends."])
    )
