import pytest

from ingest.load.pdf_lines import paragraphs, words_of


def joined(page: str, elsewhere: str = "") -> str:
    return paragraphs(page, words_of(f"{page}\n{elsewhere}"))


def test_lines_that_fill_the_width_are_joined_and_others_stay():
    page = (
        "A Short Heading\n"
        "The first line of the paragraph fills the whole width of it,\n"
        "and so does the second one, which is followed by a short\n"
        "last line.\n"
        "Another paragraph begins here, after a line that ended early.\n"
    )
    assert joined(page) == (
        "A Short Heading\n"
        "The first line of the paragraph fills the whole width of it, and so does the second one, "
        "which is followed by a short last line.\n"
        "Another paragraph begins here, after a line that ended early."
    )


def test_items_and_table_rows_keep_their_lines():
    page = (
        "The following paragraph is as wide as the page and says so:\n"
        "• the first item, which is as long as the paragraph above it\n"
        "2. the second item, which is as long as the paragraph above\n"
        "Revenue 2021 10.5 2022 11.5 2023 12.5 2024 13.5 2025 14.5 1\n"
        "Earnings 2021 0.5 2022 1.5 2023 2.5 2024 3.5 2025 4.5 12345\n"
    )
    assert joined(page) == page.strip()


@pytest.mark.parametrize(
    ("page", "elsewhere", "expected"),
    [
        ("an infor-\nmation", "", "an information"),
        ("state-of-the-\nart", "", "state-of-the-art"),
        ("a self-\nlocking nut", "every self-locking nut", "a self-locking nut"),
        ("the inter-\nnational", "international, inter-national", "the international"),
        ("the COVID-\n19 years", "", "the COVID-19 years"),
        ("the Anglo-\nSaxon", "", "the Anglo-Saxon"),
        ("pre-\nand post-war", "", "pre-\nand post-war"),
        ("Donau\u00ad\ndampf und Schiff\u00adfahrt", "", "Donaudampf und Schifffahrt"),
        ("a dash -\nand more", "", "a dash -\nand more"),
    ],
)
def test_words_broken_at_a_line_end_are_mended(page, elsewhere, expected):
    assert joined(page, elsewhere) == expected


def test_ligatures_are_spelt_out():
    assert joined("eﬃcient ﬁnal ﬂow") == "efficient final flow"


def test_japanese_lines_are_joined_without_a_blank():
    line = "吾輩は猫である名前はまだ無いどこで生れたかとんと見当がつかぬ吾輩は"
    assert joined(f"{line}\n{line}") == line + line


def test_blank_lines_become_one():
    assert joined("\n\na\n \n\n\nb\n\n") == "a\n\nb"


def test_a_page_without_text_is_empty():
    assert joined(" \n \n") == ""
