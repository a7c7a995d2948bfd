import random

import pytest

from ingest.load.decoding import clean, decode
from rag.errors import DocumentError

JAPANESE = "吾輩は猫である。名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。何でも薄暗い所で泣いていた。"
RUSSIAN = "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены разумом и совестью. " * 3


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_and_is_dropped(encoding):
    assert decode("Grüße aus Łódź\n".encode(encoding)) == "Grüße aus Łódź\n"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["plain words\n", "中文 测试", JAPANESE])
def test_wide_encodings_are_recognised_without_a_mark(encoding, text):
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize("text", ["Ã©tÃ©", "é", "naïve café — “quoted”", "Ð¿Ñ€Ð¸", "日本", "\u0080 ÿ"])
def test_what_is_utf_8_is_never_taken_for_another_encoding(text):
    assert decode(text.encode("utf-8"), declared="iso-8859-1") == clean(text)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "café"),
        ("cp1252", "Müller sagt: „Das kostet 5 €“ – und geht über die Straße."),
        ("cp1250", "Zażółć gęślą jaźń. Wczoraj wieczorem poszliśmy do kina, żeby obejrzeć nowy film."),
        ("cp1251", RUSSIAN),
        ("koi8-r", RUSSIAN),
        ("shift_jis", JAPANESE),
        ("euc_jp", JAPANESE),
        ("gb18030", "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。"),
        ("euc_kr", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."),
    ],
)
def test_other_encodings_are_detected(encoding, text):
    assert decode(text.encode(encoding)) == text


def test_one_foreign_letter_after_megabytes_of_ascii_is_seen():
    assert decode(b"plain words " * 200_000 + "Ende: Straße".encode("cp1252")).endswith("Ende: Straße")


def test_a_declared_encoding_is_trusted_before_detection():
    text = "Ångström"
    assert decode(text.encode("cp850"), declared="cp850") == text
    assert decode(text.encode("cp1252"), declared="ISO-8859-1") == text
    assert decode(text.encode("cp1252"), declared="no-such-encoding") == text
    assert decode(JAPANESE.encode("iso2022_jp"), declared="ISO-2022-JP") == JAPANESE


@pytest.mark.parametrize("size", [300, 3000, 100_000])
def test_binary_data_is_refused(size):
    with pytest.raises(DocumentError, match="binary file"):
        decode(random.Random(size).randbytes(size))


@pytest.mark.parametrize("lowest", [0x80, 0xA0])
def test_noise_without_nuls_has_no_encoding(lowest):
    generator = random.Random(lowest)
    with pytest.raises(DocumentError, match="encoding cannot be detected"):
        decode(bytes(generator.randrange(lowest, 256) for _ in range(5000)))


def test_a_stray_nul_does_not_make_a_text_binary():
    assert decode(b"one line\n" * 50 + b"with a nul\0\n" + b"more\n" * 50).count("with a nul\n") == 1


def test_an_empty_file_is_named_as_such():
    with pytest.raises(DocumentError, match="empty"):
        decode(b"")


def test_clean_unifies_line_ends_and_removes_controls_and_nothing_else():
    assert clean("a\r\nb\rc\u2028d\x0ce\x85f") == "a\nb\nc\nd\ne\nf"
    assert clean("\ufeffx\x00\x07y\x1b\tz\x7f\ud800") == "xy\tz"
    unchanged = "ﬁne  Ａ\u0301 ‘q’ \u00ad\u00a0\n\n  end "
    assert clean(unchanged) == unchanged
