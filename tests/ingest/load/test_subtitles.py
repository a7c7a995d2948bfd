import pytest

from ingest.load.subtitles import load
from rag.errors import DocumentError


def test_voices_begin_paragraphs_and_blocks_that_are_not_said_are_left_out():
    extracted = load(
        b"WEBVTT - A talk\nKind: captions\nLanguage: en\n\nSTYLE\n::cue { color: red }\n\nREGION\nid:r\n\n"
        b"NOTE not said\n\nintro\n00:01.000 --> 00:03.000 align:left\n"
        b"<v.loud Ann Lee>Hello <i>there</i>,\nBob &amp; Cy.\n\n"
        b"00:03.000 --> 00:04.500\n<v Ann Lee>How are you?</v>\n\n1:00:04.500 --> 1:00:06.000\n"
        b"<v Bob>Fine.</v> <v Cy>Me too.\n"
    )
    assert extracted.text == "Ann Lee: Hello there, Bob & Cy. How are you?\n\nBob: Fine.\n\nCy: Me too.\n"
    assert extracted.title == "A talk"
    assert extracted.metadata == {"start_s": 1.0, "duration_s": 3605.0, "language": "en"}
    assert extracted.media_type == "text/vtt"


def test_subrip_goes_on_after_an_empty_line_and_a_pause_ends_a_paragraph():
    extracted = load(
        b"\xef\xbb\xbf1\r\n00:00:01,000 --> 00:00:02,500\r\n<font color=red>One</font> {\\an8}two\r\n\r\nthree\r\n\r\n"
        b"2\r\n00:00:02,600 --> 00:00:03,000\r\n4\r\n\r\n3\r\n00:01:00,000 --> 00:01:01,000\r\nLater.\r\n"
    )
    assert extracted.text == "One two three 4\n\nLater.\n"
    assert extracted.metadata == {"start_s": 1.0, "duration_s": 60.0}
    assert extracted.media_type == "application/x-subrip"


def test_captions_that_roll_up_say_everything_once():
    extracted = load(
        b"WEBVTT\n\n00:00:00.000 --> 00:00:02.000\n \nthe first<00:00:01.000><c> line</c>\n\n"
        b"00:00:02.000 --> 00:00:02.010\nthe first line\n \n\n"
        b"00:00:02.010 --> 00:00:04.000\nthe first line\nand a<00:00:03.000><c> second</c>\n\n"
        b"00:00:04.000 --> 00:00:05.000\nand a second one\n"
    )
    assert extracted.text == "the first line and a second one\n"


def test_what_is_said_again_after_a_moment_stays():
    extracted = load(b"WEBVTT\n\n00:01.000 --> 00:02.000\nNo.\n\n00:02.500 --> 00:03.000\nNo.\n")
    assert extracted.text == "No. No.\n"


def test_a_long_speech_is_divided_at_its_sentences():
    cues = [f"00:{second:02}.000 --> 00:{second + 1:02}.000\n{f'word{second} ' * 20}end." for second in range(20)]
    paragraphs = load(("WEBVTT\n\n" + "\n\n".join(cues)).encode()).text.strip().split("\n\n")
    assert len(paragraphs) > 2
    assert all(len(paragraph) < 800 for paragraph in paragraphs)
    assert " ".join(paragraphs).count("word") == 400


@pytest.mark.parametrize(
    "data", [b"WEBVTT\n\nNOTE nothing\n", b"just words\n", b"1\n00:00:01,000 --> 00:00:02,000\n\n"]
)
def test_a_file_without_cues_is_reported(data):
    with pytest.raises(DocumentError, match="no subtitles"):
        load(data)
