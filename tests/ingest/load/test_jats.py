import pytest

from ingest.load.detect import extract
from ingest.load.jats import load
from rag.errors import DocumentError

DOCTYPE = '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Publishing DTD v1.3//EN" "journal.dtd">'


def article(body: str = "", *, meta: str = "", back: str = "", after: str = "") -> bytes:
    front = f"<front><article-meta>{meta}</article-meta></front>"
    source = f"<article>{front}<body>{body}</body><back>{back}</back>{after}</article>"
    return f'<?xml version="1.0"?>\n{DOCTYPE}\n{source}'.encode()


def test_front_matter_is_title_people_abstract_and_metadata():
    extracted = load(
        article(
            "<p>Text.</p>",
            meta='<article-id pub-id-type="doi">10.1/x</article-id>'
            "<title-group><article-title>On <italic>E. coli</italic></article-title></title-group>"
            '<contrib-group><contrib contrib-type="author"><name><surname>Doe</surname>'
            '<given-names>Ann B.</given-names></name><xref ref-type="aff">1</xref></contrib>'
            '<contrib contrib-type="author"><collab>The Group</collab></contrib>'
            '<contrib contrib-type="editor"><name><surname>Roe</surname></name><aff>Elsewhere</aff></contrib>'
            "</contrib-group><aff><label>1</label><institution>Lab</institution><country>Chile</country></aff>"
            "<pub-date><year>2020</year></pub-date><abstract><p>In short.</p></abstract>"
            "<kwd-group><kwd>gut</kwd><kwd>cells</kwd></kwd-group>",
        )
    )
    assert extracted.text == (
        "On E. coli\n\nAnn B. Doe, The Group\n\nLab, Chile\n\nAbstract\n\nIn short.\n\nKeywords: gut, cells\n\nText."
    )
    assert extracted.title == "On E. coli"
    assert extracted.metadata == {
        "author": "Ann B. Doe, The Group",
        "doi": "10.1/x",
        "keywords": ["gut", "cells"],
        "year": 2020,
    }
    assert extracted.media_type == "application/jats+xml"


def test_sections_are_headings_with_their_numbers_and_levels():
    extracted = load(
        article(
            "<sec><label>1.</label><title>One</title><p>a\n  b</p><sec><title>Two</title><p>c</p></sec></sec>",
            back="<ack><p>Thanks.</p></ack>",
            after="<sub-article><front-stub><title-group><article-title>Letter</article-title></title-group>"
            "</front-stub><body><p>Dear.</p></body></sub-article>",
        )
    )
    assert extracted.text == "1. One\n\na b\n\nTwo\n\nc\n\nAcknowledgements\n\nThanks.\n\nLetter\n\nDear."
    assert [(heading.level, heading.text) for heading in extracted.headings] == [
        (2, "1. One"),
        (3, "Two"),
        (2, "Acknowledgements"),
        (2, "Letter"),
    ]
    for heading in extracted.headings:
        assert extracted.text.startswith(heading.text, heading.start)


def test_tables_are_rows_of_cells_below_their_caption():
    table = (
        "<table><thead><tr><th>Year</th><th>Sum</th></tr></thead>"
        '<tbody><tr><td rowspan="2">2020</td><td>1</td></tr><tr><td>2<sup>a</sup></td></tr></tbody></table>'
    )
    source = (
        "<table-wrap><label>Table 1</label><caption><title>Sums.</title><p>All.</p></caption>"
        f"<alternatives><graphic/>{table}</alternatives>"
        "<table-wrap-foot><fn><label>a</label><p>estimated</p></fn></table-wrap-foot></table-wrap>"
    )
    assert load(article(source)).text == ("Table 1 Sums. All.\n\nYear | Sum\n2020 | 1\n2020 | 2a\n\na estimated")


def test_lists_and_formulas_inside_a_paragraph_are_blocks():
    source = (
        '<p>As <list list-type="order"><list-item><p>one</p></list-item><list-item><p>two</p><list><list-item>'
        "<p>deep</p></list-item></list></list-item></list> and <disp-formula><label>(1)</label><alternatives>"
        "<graphic/><tex-math>\\documentclass{article}\\begin{document}$$x^2$$\\end{document}</tex-math>"
        "</alternatives></disp-formula> so.</p>"
    )
    assert load(article(source)).text == "As\n\n1. one\n2. two\n- deep\n\nand\n\n(1) $$x^2$$\n\nso."


def test_references_are_lines_whether_written_out_or_given_as_fields():
    name = "<name><surname>Doe</surname><given-names>A</given-names></name>"
    source = (
        f"<ref-list><ref><label>1</label><mixed-citation>{name}. <source>Book</source>. 2001.</mixed-citation></ref>"
        f"<ref><element-citation><person-group>{name}{name}</person-group><year>2009</year>"
        "<article-title>Title</article-title><source>Journal</source><volume>3</volume><fpage>5</fpage><lpage>8</lpage>"
        '<pub-id pub-id-type="doi">10.1/y</pub-id></element-citation></ref></ref-list>'
    )
    assert load(article(back=source)).text == (
        "References\n- Doe A. Book. 2001.\n- Doe A, Doe A. Title. Journal 3:5–8 (2009). DOI: 10.1/y"
    )


@pytest.mark.parametrize("name", ["article.nxml", "article.xml", "article.txt", "article"])
def test_an_article_is_known_by_its_document_type(name):
    assert extract(article("<p>Text.</p>"), name).media_type == "application/jats+xml"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"<rss><channel><title>News</title></channel></rss>", "unsupported XML with the root element rss"),
        (b"<article><h1>No front</h1></article>", "unsupported XML with the root element article"),
        (b"<article><front>", "not well-formed"),
        (article("<sec>" * 5000 + "</sec>" * 5000), "nested deeper"),
        (b'<!DOCTYPE article [<!ENTITY a "aaaa">]><article><front/>&a;</article>', "entities"),
    ],
)
def test_other_xml_is_refused_with_its_reason(source, reason):
    with pytest.raises(DocumentError, match=reason):
        extract(source, "feed.xml")
