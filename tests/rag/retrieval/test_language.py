import json
from pathlib import Path

import pytest
from Stemmer import algorithms

from rag.retrieval.language import LANGUAGES, detect_language, stop_words

TEXTS = {
    "arabic": "ذهب الولد إلى المدرسة في الصباح مع أخيه، ثم عاد إلى البيت بعد الظهر لأنه كان متعبا من اللعب.",
    "catalan": "El nen va anar a l'escola amb el seu germà perquè no volia quedar-se sol a casa, però després va.",
    "czech": "Chlapec šel ráno do školy se svým bratrem, protože nechtěl být sám doma, ale pak už se mu tam nelíbilo.",
    "danish": "Drengen blev hentet af sin bror, fordi han ikke ville være alene hjemme, men så begyndte det at.",
    "dutch": "De jongen ging met zijn broer naar school, omdat hij niet alleen thuis wilde zijn, maar toen begon.",
    "english": "The boy went to school with his brother because he did not want to be alone at home, but then it.",
    "finnish": "Poika meni kouluun veljensä kanssa, koska hän ei ollut yksin kotona, mutta se oli niin kaukana.",
    "french": "Le garçon est allé à l'école avec son frère parce qu'il ne voulait pas rester seul dans la maison.",
    "german": "Der Junge ging mit seinem Bruder in die Schule, weil er nicht allein zu Hause sein wollte, aber.",
    "greek": "Το αγόρι πήγε στο σχολείο με τον αδελφό του, γιατί δεν ήθελε να είναι μόνο του στο σπίτι.",
    "hungarian": "A fiú a testvérével ment az iskolába, mert nem akart egyedül lenni otthon, de aztán már nem is.",
    "indonesian": "Anak itu pergi ke sekolah dengan kakaknya karena dia tidak mau sendiri di rumah, tetapi kemudian.",
    "italian": "Il ragazzo è andato a scuola con suo fratello perché non voleva stare da solo nella casa, ma poi.",
    "norwegian": "Gutten gikk på skolen med broren sin fordi han ikke ville være alene hjemme, men da hadde noen.",
    "persian": "پسر با برادر خود به مدرسه رفت و گفت که این خانه را برای آن نمی خواهد، اما بعد از آن باران شد.",
    "polish": "Chłopiec poszedł do szkoły ze swoim bratem, ponieważ nie chciał być sam w domu, ale potem już się.",
    "portuguese": "O menino foi para a escola com o seu irmão porque não queria ficar sozinho em casa, mas depois.",
    "romanian": "Băiatul a mers la școală cu fratele său pentru că nu voia să fie singur în casă, dar după aceea.",
    "russian": "Мальчик пошёл в школу с братом, потому что он не хотел быть один дома, но потом начался дождь.",
    "spanish": "El niño fue a la escuela con su hermano porque no quería estar solo en la casa, pero después llovió.",
    "swedish": "Pojken gick till skolan med sin bror, eftersom han inte ville vara ensam hemma, men då började det.",
    "turkish": "Çocuk evde yalnız kalmak istemediği için kardeşi ile okula gitti, ama daha sonra çok yağmur ve kar.",
}


def test_every_language_but_none_has_stop_words_and_a_stemmer():
    assert set(LANGUAGES) - {"none"} <= set(algorithms())
    assert all(len(stop_words(language)) >= 50 for language in LANGUAGES if language != "none")
    assert stop_words("none") == frozenset()
    assert all(word == word.casefold() for language in LANGUAGES for word in stop_words(language))


@pytest.mark.parametrize("language", sorted(set(LANGUAGES) - {"none"}))
def test_a_text_is_known_by_its_stop_words(language):
    assert detect_language([TEXTS[language]]) == language
    assert detect_language([TEXTS[language].upper()] * 3) == language


def test_the_language_is_that_of_more_than_half_of_the_texts_that_have_one():
    german, english, numbers = TEXTS["german"], TEXTS["english"], "4711; 0815; 42"
    assert detect_language([german, german, english, numbers, numbers, numbers]) == "german"
    assert detect_language([german, english]) == "none"
    assert detect_language([TEXTS["french"], german, english, german]) == "none"


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["42", "4711", "2024-01-15"],
        ["asdf qwer zxcv uiop hjkl vbnm"],
        ["北京是中华人民共和国的首都。", "东京是日本的首都 and the capital of it。" * 3],
        ["ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอน" * 3],
        ["東京は日本の首都です。人口は約千四百万人です。"],
    ],
)
def test_texts_that_do_not_tell_have_no_language(texts):
    assert detect_language(texts) == "none"


def test_titles_tell_together_what_none_tells_alone():
    assert detect_language(["The moon", "Of the sea", "A boat", "In the wood", "With him"]) == "english"


@pytest.mark.parametrize(("name", "language"), [("en", "english"), ("de", "german"), ("zh", "none")])
def test_a_collection_of_paragraphs_is_detected(name, language):
    corpus = Path(__file__).parents[4] / "shared/data/xquad" / name / "corpus.jsonl"
    if not corpus.exists():
        pytest.skip(f"{corpus} is absent")
    texts = [json.loads(line)["text"] for line in corpus.read_text(encoding="utf-8").splitlines()]
    assert detect_language(texts) == language
