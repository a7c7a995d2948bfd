import pytest

from ingest.load.html import load
from rag.types import Heading


def text(source: str) -> str:
    return load(source.encode()).text


def test_blocks_are_parted_by_blank_lines_and_white_space_collapses():
    assert text("<p>One\n   two <b>three</b>.</p><div>Four<br>five</div>six") == "One two three.\n\nFour\nfive\n\nsix"


def test_inline_markup_adds_no_white_space():
    assert text("<p>H<sub>2</sub>O, <em>well</em>, f<i>oo</i></p>") == "H2O, well, foo"


def test_headings_have_levels_and_exact_offsets():
    extracted = load("<h1>Ä  <i>b</i></h1><p>𝄞 text</p><h3>C<br>d</h3>e".encode())
    assert extracted.text == "Ä b\n\n𝄞 text\n\nC d\n\ne"
    assert extracted.headings == (Heading(0, 1, "Ä b"), Heading(extracted.text.index("C d"), 3, "C d"))


def test_list_items_begin_with_a_dash_or_their_number():
    unordered = "<ul><li>a<ul><li><p>b</p></li></ul></li><li> </li><li>c</li></ul>"
    ordered = "<ol start=3><li>d<li>e<li value=9>f</ol>"
    assert text(f"<p>x</p>{unordered}{ordered}y") == "x\n\n- a\n- b\n- c\n\n3. d\n4. e\n9. f\n\ny"


def test_description_lists_keep_a_line_per_term():
    assert text("<dl><dt>Term</dt><dd>Means this</dd><dt>Other</dt></dl>") == "Term\nMeans this\nOther"


def test_tables_are_rows_of_cells():
    source = (
        "<table><caption>Prices</caption><thead><tr><th>Item<th>Price</thead>"
        "<tr><td><p>Tea</p><ul><li>green</ul><td>2 €</tr><tr><td> <td></tr><tr><td>Milk<td></tr></table>after"
    )
    assert text(source) == "Prices\n\nItem | Price\nTea green | 2 €\nMilk |\n\nafter"


def test_a_label_that_spans_rows_and_columns_stands_in_each_of_them():
    source = (
        "<table><tr><th>Year<th>Quarter<th colspan=2>Money<tr><th rowspan=3>2025</th></tr>"
        "<tr><td rowspan=2>Q1<td>1 €<td>2 €<tr><td>3 €<td>4 €<tr><td colspan=4>After tax</table>"
    )
    assert text(source) == (
        "Year | Quarter | Money | Money\n2025\n2025 | Q1 | 1 € | 2 €\n2025 | Q1 | 3 € | 4 €\nAfter tax"
    )


def test_a_row_span_ends_with_its_table_and_its_row_group():
    grouped = "<table><thead><tr><th rowspan=9>a<th>b<tbody><tr><td>c<td>d</table>"
    assert text(f"{grouped}<table><tr><td>e<td>f</table>") == "a | b\nc | d\n\ne | f"


def test_a_table_that_lays_out_a_page_is_read_as_blocks():
    source = "<table><tr><td><h2>Part</h2><p>One.</p><p>Two.</p><td><table><tr><td>a<td>b</table></table>"
    extracted = load(source.encode())
    assert extracted.text == "Part\n\nOne.\n\nTwo.\n\na | b"
    assert extracted.headings == (Heading(0, 2, "Part"),)


def test_preformatted_text_is_preserved():
    assert text("<p>x</p><pre><code>\nif a:\n    b  <i>c</i>\n\n    d\n</code></pre>y") == (
        "x\n\nif a:\n    b  c\n\n    d\n\ny"
    )


def test_entities_are_characters_and_soft_hyphens_are_gone():
    assert text("<p>a &lt; b &amp;&nbsp;&euro;&#x1D11E; Donau&shy;dampf &#1;</p>") == "a < b &\u00a0€𝄞 Donaudampf"


def test_the_text_of_images_is_text():
    assert text('<p>See<img alt="a map"><img alt="">here</p>') == "See a map here"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<nav>n</nav><header>h</header><p>x</p><aside>a</aside><footer>f</footer>", "x"),
        ("<div>around</div><main><header>top</header>x<nav>n</nav><aside>note</aside></main>", "top\n\nx\n\nnote"),
        ("<div>around</div><article>x<article>reply</article></article>", "x\n\nreply"),
        ("<h1>All</h1><article>x</article><article>y</article>", "All\n\nx\n\ny"),
        ("<main> </main><article>x</article>", "x"),
        ("<header><p>all there is</p></header>", "all there is"),
        ("<script>s</script><style>t</style><template>t</template><noscript>n</noscript><p hidden>h</p>x", "x"),
        ("x<svg><title>icon</title><text>t</text></svg>", "x"),
    ],
)
def test_only_the_main_content_is_text(source, expected):
    assert text(f"<!doctype html><title>t</title><body>{source}") == expected


def test_title_and_metadata_are_those_of_the_head():
    extracted = load(
        b'<html lang="de"><head><title> A\n title </title><meta name="Author" content="Someone">'
        b'<meta name=description content="In  short"><meta name=viewport content=x></head><h1>H</h1></html>'
    )
    assert extracted.title == "A title"
    assert extracted.metadata == {"author": "Someone", "description": "In short", "language": "de"}
    assert extracted.media_type == "text/html"


def test_the_first_heading_stands_in_for_a_missing_title():
    assert load(b"<h2>a</h2><h1>The <i>one</i></h1>").title == "The one"
    assert load(b"<p>x").title is None


@pytest.mark.parametrize(
    "declaration",
    ['<meta charset="cp850">', '<meta http-equiv=Content-Type content="text/html; charset=cp850">'],
)
def test_the_declared_encoding_is_used(declaration):
    assert load(f"{declaration}<p>Ångström".encode("cp850")).text == "Ångström"


def test_utf_8_wins_over_a_wrong_declaration():
    assert load('<meta charset="iso-8859-1"><p>Ångström'.encode()).text == "Ångström"


def test_utf_16_is_read():
    assert load("<p>Ångström".encode("utf-16")).text == "Ångström"


def test_deep_nesting_loses_no_text():
    extracted = load(b"<div>" * 50_000 + b"deep" + b"</div>" * 50_000 + b"<p>after")
    assert extracted.text == "deep\n\nafter"


def test_a_tag_with_thousands_of_attributes_loses_only_them():
    attributes = " ".join(f"a{number}='>'" for number in range(20_000))
    assert text(f"<p {attributes}>kept</p>") == "kept"


def test_a_long_attribute_is_no_reason_to_lose_the_tag():
    assert text(f'<p>x <img src="data:image/png;base64,{"A" * 50_000}" alt="kept"></p>') == "x kept"
