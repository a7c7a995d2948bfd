import pytest
from Stemmer import Stemmer

from rag.retrieval.analysis import Analyzer
from rag.retrieval.language import stop_words


def analyzer(language: str = "english") -> Analyzer:
    stem = str if language == "none" else Stemmer(language).stemWord
    return Analyzer(stem=stem, stop_words=stop_words(language), language=language)


def terms(text: str, language: str = "english") -> list[str]:
    return [term.text for term in analyzer(language).terms(text)]


def asked(query: str, language: str = "english", phrase_weight: float = 2) -> dict[str, float]:
    return analyzer(language).query_terms(query, phrase_weight=phrase_weight)


@pytest.mark.parametrize("written", ["max_tokens", "maxTokens", "MaxTokens", "max-tokens", "MAX_TOKENS", "max.tokens"])
@pytest.mark.parametrize("query", ["max_tokens", "maxTokens", "maxtokens", "tokens", "max token"])
def test_an_identifier_is_found_whole_and_by_its_parts(written, query):
    assert asked(query).keys() & set(terms(f"Set `{written}=5`."))


@pytest.mark.parametrize(
    ("text", "whole", "parts"),
    [
        ("HTTPServer2", "httpserver2", ["http", "server", "2"]),
        ("foo.bar.Baz", "foobarbaz", ["foo", "bar", "baz"]),
        ("--dry-run", "dryrun", ["dri", "run"]),
        ("v1.2.3", "1.2.3", ["1", "2", "3"]),
        ("ISO-9001", "iso9001", ["iso", "9001"]),
        ("CVE-2024-1234", "cve2024.1234", ["cve", "2024", "1234"]),
        ("(/etc/nginx/nginx.conf)", "etcnginxnginxconf", ["etc", "nginx", "conf", "nginxconf"]),
        ("<jane.doe@example.com>,", "janedoeexamplecom", ["jane", "doe", "exampl", "examplecom"]),
        ("2024-01-15", "2024.01.15", ["2024", "01", "15"]),
        ("C++", "c++", ["c"]),
        ("C#,", "c#", ["c"]),
        ("__init__", "init", []),
        ("p53", "p53", ["53"]),
        ("e-mails", "email", ["mail"]),
    ],
)
def test_the_whole_and_the_parts_are_terms(text, whole, parts):
    found = terms(text)
    assert found.count(whole) == 1
    assert set(parts) <= set(found)


@pytest.mark.parametrize(
    "spellings",
    [
        ["v1.2.3", "1.2.3"],
        ["ISO-9001", "ISO9001", "iso_9001"],
        ["1,000.50", "1.000,50", "1000.50"],
        ["1,234,567", "1.234.567", "1234567"],
        ["3.5", "3,5"],
        ["Wi-Fi", "WiFi", "wifi"],
        ["APIs", "API", "apis"],
        ["naïve", "naive", "NAÏVE", "nai\u0308ve"],
        ["ＡＢＣ", "abc"],
        ["Donau\u00addampf", "Donaudampf"],
        ["tide’s", "tide's", "tide"],
    ],
)
def test_spellings_of_one_thing_share_a_term(spellings):
    assert set.intersection(*(set(terms(spelling)) for spelling in spellings))


@pytest.mark.parametrize(("one", "other"), [("1.11", "11.1"), ("3.5", "35"), ("v1.2.3", "v12.3"), ("C#", "C++")])
def test_different_numbers_and_names_have_different_terms(one, other):
    assert set(terms(one)) - set(terms(other))
    assert set(terms(other)) - set(terms(one))


def test_a_compound_does_not_outweigh_the_words_around_it():
    weights = asked("read cve-2024-1234 with maxTokens")
    assert (weights["cve2024.1234"], weights["maxtoken"]) == (pytest.approx(1 / 3), 1)
    assert weights["max"] == weights["token"] == pytest.approx(1 / 4)
    assert {weights[word] for word in ("read", "cve", "2024", "1234")} == {1}


def test_data_is_not_taken_apart():
    digest = "9f86d081884c7d659a2feaa0c55ad015"
    assert terms(digest) == [digest]
    assert terms("A1b2" * 5000) == ["a1b2" * 5000]


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("german", ["Häuser", "HÄUSER", "Haus", "hauser", "Haeuser"]),
        ("french", ["élève", "eleve", "élèves"]),
        ("turkish", ["IŞIK", "ışık"]),
        ("swedish", ["händer", "HÄNDER", "hander"]),
        ("none", ["Größe", "grösse", "GRÖSSE"]),
        ("english", ["résumés", "resume"]),
        ("russian", ["ёлка", "елка"]),
    ],
)
def test_case_accents_and_endings_do_not_matter(language, words):
    assert len({tuple(terms(word, language)) for word in words}) == 1


def test_marks_that_make_another_letter_are_kept():
    assert terms("が", "none") != terms("か", "none")
    assert terms("हिन्दी", "none") == ["हिन्दी"]
    assert terms("й", "none") != terms("и", "none")


def test_elided_words_are_left_out():
    assert terms("l'eau d’Orsay", "french") == ["eau", "orsay"]
    assert [term.is_stop_word for term in analyzer("english").terms("don't they’ll")] == [True, True]
    assert terms("vitamin D") == ["vitamin", "d"]


def test_han_is_cut_into_pairs_and_characters():
    assert terms("东京大学", "none") == ["东京", "京大", "大学", "东", "京", "大", "学"]
    assert terms("猫", "none") == ["猫"]
    assert asked("东京", "none") == {"东京": 1, "东": 0.5, "京": 0.5}
    assert terms("用AI技术v2.0。", "english")[:3] == ["用", "ai", "技术"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("私はコンピューターが好きです。", "コンピューター"),
        ("我家的猫很大", "猫"),
        ("서울에서 만나요", "서울"),
        ("ฉันรักภาษาไทยมาก", "ภาษาไทย"),
        ("信息\n检索", "信息检索"),
        ("ﾃﾞｰﾀ", "データ"),
    ],
)
@pytest.mark.parametrize("language", ["none", "english", "german"])
def test_unspaced_scripts_are_found_whatever_the_language(text, query, language):
    wanted = {term for term, weight in asked(query, language).items() if weight == 1}
    assert wanted
    assert wanted <= set(terms(text, language))


@pytest.mark.parametrize(
    "query",
    [
        '"full moon" tide',
        "“full moon” tide",
        "„full moon“ tide",
        "«full moon» tide",
        "» full moon « tide",
        "「full moon」tide",
    ],
)
def test_terms_in_quotation_marks_weigh_more(query):
    assert asked(query) == {"full": 2, "moon": 2, "tide": 1}
    assert asked(query, phrase_weight=1) == {"full": 1, "moon": 1, "tide": 1}


@pytest.mark.parametrize(
    "query", ['full "moon', 'full moon"', "full “moon", "moon» full", '5" and 6" full moon', '"" moon']
)
def test_a_quotation_mark_without_its_pair_means_nothing(query):
    assert set(asked(query).values()) == {1}


def test_a_term_in_and_outside_a_phrase_takes_the_larger_weight():
    assert asked('moon "moon" moon') == {"moon": 2}


def test_stop_words_are_asked_for_where_there_is_nothing_else():
    assert asked("the moon of the sea").keys() == {"moon", "sea"}
    assert len(asked("to be or not to be")) == 4
    assert asked('"The Who" tour') == {"tour": 1, "the'": 2, "who'": 2}
    assert asked('"state of the art"').keys() == {"state", "art"}
    assert asked('"moon" of the') == {"moon": 2}
    assert asked("to be or not to be").keys() <= set(terms("To be, or not to be?"))


def test_a_stop_word_is_not_the_stem_of_another_word():
    assert not set(terms("can")) & set(terms("cans"))


def test_a_stop_word_in_capitals_is_an_abbreviation():
    assert asked("guidelines of the WHO").keys() >= {"guidelin", "who"}
    assert not asked("guidelines of the WHO").keys() & set(terms("those who guide")) - {"who'"}
    assert asked("GUIDELINES OF THE WHO").keys() == {"guidelin"}


@pytest.mark.parametrize("word", ["WHO", "IT", "ME", "OR"])
def test_a_short_query_in_capitals_finds_the_abbreviation(word):
    only_as_abbreviation = set(terms(f"{word} standards")) - set(terms(f"{word.lower()} standards"))
    assert asked(word).keys() & only_as_abbreviation
    assert asked(f"{word} STANDARDS").keys() & only_as_abbreviation
    assert asked(f'"{word}"').keys() & only_as_abbreviation


def test_a_short_query_that_is_shouted_finds_what_it_means():
    assert asked("TO BE").keys() >= asked("to be").keys()
    assert asked('"TO BE"').keys() >= asked('"to be"').keys()
    assert asked("KEEP BACKUPS") == asked("keep backups")
    assert asked("THE MOON").keys() & set(terms("the moon")) == {"moon"}


def test_a_sentence_in_capitals_is_read_as_one_without():
    assert asked("HOW LONG ARE BACKUPS KEPT") == asked("how long are backups kept")
    assert asked("TO BE OR NOT TO BE") == asked("to be or not to be")
    assert asked("KIRMIZI IŞIK NEREDE YANAR", "turkish") == asked("kırmızı ışık nerede yanar", "turkish")


@pytest.mark.parametrize("text", ["", " \n", "?!", "—", '""', "🙂", "'", "_", "\u200d"])
def test_a_text_without_words_has_no_terms(text):
    assert terms(text) == []
    assert asked(text) == {}


@pytest.mark.parametrize("pattern", ["a.", "a'", "a/", "_-", "aA1", '"«', "猫", "1,000.", "C#"])
def test_terms_and_time_are_linear_in_the_text_whatever_it_holds(pattern):
    # In quadratic time this would take minutes.
    text = pattern * 50_000
    found = analyzer().terms(text)
    assert len(found) <= 2 * len(text)
    assert sum(len(term.text) for term in found) <= 4 * len(text)
    assert len(asked(text)) <= len(found)
