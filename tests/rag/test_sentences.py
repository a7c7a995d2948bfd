import random

import pytest

from rag.sentences import sentence_spans


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["It rained.", "We stayed in."],
        [
            "Survival improved (p = 0.016).",
            "No effect was seen in group 2.",
            "p53 was unchanged.",
            "mRNA rose.",
        ],
        ["Smith et al. (2004) used e.g. mice and rats, cf. Fig. 2 and Eq. 3, vs. controls.", "We did not."],
        ["Smith et al. Nature 2004, found none.", "Apple Inc. Cupertino, too, etc.", "The rest did."],
        ["Dr. Smith met Mrs. Jones at St. Mary's.", "They spoke."],
        ["The U.S. army left.", "He lives in the U.S.", "The rest is unknown.", "It is 5 p.m.", "We go."],
        ["J. K. Rowling wrote it.", "T. S. Eliot did not."],
        ["Patients took vitamin C.", "The others did not."],
        ["It cost 3.50 dollars, about 1.2.3 units.", "That was in 1998.", "October was cold."],
        [
            "Wait... what?!",
            "No way!",
            "“Really?” he asked.",
            "“Yes.”",
            "(So it was.)",
            "Then [he left.]",
            "End",
        ],
        ["He paused… and went on.", "Then nothing…", "Silence."],
        ["See No. 5 on p. 12, vol. 3.", "No.", "That is all."],
        ["As shown.[12]", "Others disagree.[3, 4]", "Done."],
        ["Das ist z.B. am 3. Oktober so.", "Es gilt Art. 5 Abs. 2 der Verordnung.", "Gut."],
        ["« Vraiment ? »", "Oui !", "¿Qué?", "¡Nada!"],
        ["Visit example.com or read file.py now.", "Version 2.0 is out."],
        ["**Note.**", "Read this."],
        ["वह घर गया।", "फिर वह सो गया।"],
        ["أين أنت؟", "أنا هنا."],
    ],
)
def test_prose_is_cut_after_the_marks_that_end_a_sentence(sentences):
    assert split(" ".join(sentences)) == sentences


def test_cjk_marks_end_a_sentence_without_white_space():
    assert split("你好。你在哪里？我在这里！「走吧。」他说") == [
        "你好。",
        "你在哪里？",
        "我在这里！",
        "「走吧。」",
        "他说",
    ]
    assert split("値は３．５である．次に進む．") == ["値は３．５である．", "次に進む．"]
    assert split("真的吗?是的!好") == ["真的吗?", "是的!", "好"]


def test_a_line_break_inside_a_paragraph_ends_nothing_and_a_blank_line_does():
    assert split("One line\nand its end. Two\r\nlines\n \nNext\fPage") == [
        "One line\nand its end.",
        "Two\r\nlines",
        "Next",
        "Page",
    ]


def test_markdown_structure_ends_sentences():
    text = (
        "Intro without stop\n# The 1. Heading. Yes\nText. More\n- item one\n  goes on. And on\n* item two\n"
        "1. First. Second\n2. Third\n\n| a. B | c |\n|---|---|\nAfter\n\nTitle\n=====\n(a) clause\n"
    )
    assert split(text) == [
        "Intro without stop",
        "# The 1. Heading. Yes",
        "Text.",
        "More",
        "- item one\n  goes on.",
        "And on",
        "* item two",
        "1. First.",
        "Second",
        "2. Third",
        "| a. B | c |",
        "|---|---|",
        "After",
        "Title\n=====",
        "(a) clause",
    ]


def test_each_line_of_fenced_code_is_a_sentence():
    text = "Run:\n```sh\nls -l. Foo\n# no heading\n~~~\n\necho a. B\n```\nThen stop. Go"
    assert split(text) == [
        "Run:",
        "```sh",
        "ls -l. Foo",
        "# no heading",
        "~~~",
        "echo a. B",
        "```",
        "Then stop.",
        "Go",
    ]


def test_a_number_at_the_start_of_a_wrapped_line_does_not_interrupt_its_paragraph():
    assert split("This is told in chapter\n12. Then he left.") == [
        "This is told in chapter\n12.",
        "Then he left.",
    ]


@pytest.mark.parametrize("text", ["", " \n\t\n ", "\f"])
def test_white_space_has_no_sentences(text):
    assert sentence_spans(text) == []


def test_every_character_that_is_not_white_space_is_in_exactly_one_sentence():
    generator = random.Random(20)
    alphabets = [
        " \n\t.!?…\"')]}*_`#|-=~0123456789aAbBzZ。！？।」",
        " .。\n" + "".join(chr(code) for code in range(0x3000, 0x3100)),
        "".join(chr(code) for code in (*range(0x20, 0x500), 0x85, 0x2028, 0x2029, 0x200D, 0x1F600)),
        "ab. \r\n\x0b\x0c\x1c",
    ]
    for _ in range(1500):
        text = "".join(generator.choices(generator.choice(alphabets), k=generator.randint(0, 120)))
        covered, previous = set(), 0
        for start, end in sentence_spans(text):
            assert previous <= start < end <= len(text)
            assert text[start:end] == text[start:end].strip()
            covered.update(range(start, end))
            previous = end
        assert all(place in covered for place, character in enumerate(text) if not character.isspace())


@pytest.mark.parametrize(
    ("unit", "count"),
    [
        (".", 1),
        ("word ", 1),
        ("a", 1),
        (" ", 0),
        ("\n", 0),
        (".)", 1),
        (".[1", 1),
        ('."', 1),
        ("``", 1),
        ("#", 1),
        ("- ", 1),
        ("1.", 1),
        ("(", 1),
        ("a. ", 1),
        (". ", 500_000),
        ("。", 1),
        ("好。", 500_000),
    ],
)
def test_a_million_characters_of_one_kind_are_cut_in_linear_time(unit, count):
    # A quadratic rule would need the better part of an hour here.
    assert len(sentence_spans(unit * (1_000_000 // len(unit)))) == count


def test_a_long_paragraph_without_marks_is_one_sentence():
    assert len(sentence_spans("word " * 24_000)) == 1
