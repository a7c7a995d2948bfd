"""Which language a collection is in, and the words of each language that say nothing of what a text is about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice

_SAMPLE_WORDS = 200
"""Of each text so many words decide: enough for a paragraph, little enough for thousands of texts."""
_FEWEST_WORDS = 5
_LEAST_SHARE = 0.15
"""Of running text a quarter to a half are stop words; of lists, tables and code fewer."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Thai, Lao, Burmese, Khmer, Kana and Han."""

_STOP_WORDS: Mapping[str, str] = {
    "arabic": """
        من إلى عن على في مع منذ حتى بين عند لدى خلال بعد قبل تحت فوق حول دون غير سوى كل بعض أي هذا هذه ذلك تلك هؤلاء
        أولئك الذي التي الذين اللذان اللتان هو هي هم هن أنا أنت نحن أنتم كان كانت كانوا يكون تكون ليس ليست لم لن لا ما
        إن أن أو أم ثم قد لقد بل لكن إذا إذ لو كما كيف متى أين هل لماذا حيث و ف ب ل يا هناك هنا أيضا فقط منه منها فيه
        فيها به بها له لها لهم عليه عليها إليه إليها وهو وهي وقد ولا وفي ومن""",
    "catalan": """
        a al als amb abans algun alguna alguns algunes aquell aquella aquells aquelles aquest aquesta aquests aquestes
        això allò ara així cada com contra d de del dels des després durant e el ella elles ells els em en encara ens
        entre era eren es està estan estat et és fins ha han has havia haver he hem ho hi i jo l la les li lo els llur
        més mateix mateixa meu meva mentre molt molta molts moltes n nosaltres no nostre nostra o on per però perquè
        poc quan quant que quin quina quins quines què qui s sa se sense ser seu seva seus seves si sobre són sota sóc
        som son t també tan tant te teu teva tot tota tots totes tu un una unes uns us va van vaig vosaltres vostre""",
    "czech": """
        a aby aj ale ani ano asi až bez bude budem budeš budou by byl byla byli bylo být co což či další do ho i já jak
        jako je jeho jej její jejich jemu jen ještě ji jinak již jsem jsi jsme jsou jste k kam kde kdo když ke která
        které který kteří ku má mají máte mě mezi mi mít mně mnou můj může my na nad nám náš naše ne nebo nebyl nebyla
        nebylo něco nějak některé nejsou není než nic nich ním o od on ona oni ono pak po pod podle pokud pouze práve
        pro proč proto protože před přes při s se si sice svá své svůj ta tak také takže tam tato te tedy ten tento
        teto tím tímto to toho tohoto tom tomto tomu tu tuto tvůj ty tyto u už v vám váš ve více však vy z za zda že""",
    "danish": """
        ad af aldrig alle alt anden andet andre at bare blev blive bliver da de dem den denne der deres det dette dig
        din dine disse dit dog du efter eller en end er et for fordi fra få får før gennem ham han hans har havde have
        hele hende hendes her hos hun hvad hvem hver hvilken hvis hvor hvordan hvorfor hvornår i ikke ind ingen intet
        jeg jer jeres jo kan kun kunne man mange med meget mellem men mens mere mig min mine mit mod må ned nej noget
        nogle nogen nok nu når og også om op os over på sad samme selv sig sin sine sit skal skulle som sådan så thi
        til ud under var ved vi vil ville vor vores være været""",
    "dutch": """
        aan al alles als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus een eens en er ge
        geen geweest haar had hadden heb hebben heeft hem het hier hij hoe hun iemand iets ik in is ja je jij jou jouw
        kan kon kunnen maar me meer men met mij mijn moet moeten na naar niet niets nog nu of om omdat onder ons onze
        ook op over reeds te tegen tijdens toch toen tot tussen u uit uw van veel voor waar waarom wanneer want waren
        was wat we wel welke werd werden wezen wie wij wil worden wordt zal ze zelf zich zij zijn zo zonder zou
        zouden""",
    "english": """
        i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
        it its itself they them their theirs themselves what which who whom this that these those am is are was were
        be been being have has had having do does did doing a an the and but if or because as until while of at by for
        with about against between into through during before after above below to from up down in out on off over
        under again further then once here there when where why how all any both each few more most other some such
        no nor not only own same so than too very can will just should now i'm i've i'll i'd you're you've you'll
        you'd he's he'll he'd she's she'll she'd it's it'll we're we've we'll we'd they're they've they'll they'd
        that's that'll there's what's who's where's how's let's ain't aren't can't cannot couldn't didn't doesn't
        don't hadn't hasn't haven't isn't mightn't mustn't needn't shan't shouldn't should've wasn't weren't won't
        wouldn't""",
    "finnish": """
        ei eivät emme en et ette että he heidän heidät heihin heille heiltä heissä heistä hän häneen hänelle häneltä
        hänen hänessä hänestä hänet ja jo joiden joihin joiksi joilla joille joissa joista joita joka joko jolla jolle
        jonka jos jossa josta jota jotka kanssa keiden ketkä kuin kuka kun me meidän meidät meille meitä mikä minkä
        minua minulla minulle minun minut minä missä mistä mitkä mitä mukaan mutta myös ne niiden niihin niiksi niille
        niin niissä niistä niitä noiden noita nuo nyt nämä näiden näihin näissä näistä näitä ole olemme olen olet
        olette oli olimme olin olisi olisivat olivat olla olleet ollut on ovat se sekä sen siihen siinä siitä sillä
        sille sinun sinut sinä sitä tai te teidän teidät tuo tuon tämä tämän tähän tässä tästä tätä vaan vai vaikka
        vain yli""",
    "french": """
        a ai aie aient ait alors as au aucun aucune aura auraient aurait auront aussi autre autres aux avaient avait
        avant avec avez avoir avons ayant c car ce ceci cela celle celles celui ces cet cette ceux chaque chez comme
        comment d dans de depuis des donc dont du elle elles en encore entre es est et étaient était étant été êtes
        être eu eux fait furent fut il ils j je jusqu l la là laquelle le lequel les lesquelles lesquels leur leurs lors
        lorsque lui m ma mais me même mêmes mes moi moins mon n ne ni nos notre nous on ont ou où par parce pas pendant
        peu peut plus pour pourquoi puis puisque qu quand que quel quelle quelles quels qui quoi s sa sans se selon
        sera seraient serait seront ses si sinon soit sommes son sont sous suis sur t ta tandis te tes toi ton tous
        tout toute toutes très tu un une vers voici voilà vos votre vous y c'est d'un d'une n'est qu'il qu'elle qu'ils
        qu'elles qu'on qu'un qu'une s'il s'est l'un l'une j'ai n'a n'ont""",
    "german": """
        aber alle allem allen aller alles als also am an andere anderem anderen anderer anderes ander anders auch auf
        aus bei beim bin bis bist da dabei dadurch dafür damit dann daran darauf daraus darin darüber das dass daß
        davon dazu dein deine deinem deinen deiner deines dem den denen denn der deren derer des dessen desto die dies
        diese dieselbe dieselben diesem diesen dieser dieses dir doch dort du durch ein eine einem einen einer eines
        einig einige einigem einigen einiger einiges einmal er es etwa etwas euch euer eure eurem euren eurer für gegen
        gewesen hab habe haben hat hatte hatten hätte hätten hier hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren
        ihrer ihres im in indem ins ist ja jede jedem jeden jeder jedes jedoch jene jenem jenen jener jenes jetzt kann
        kein keine keinem keinen keiner können könnte man manche manchem manchen mancher manches mehr mein meine meinem
        meinen meiner mich mir mit muss muß musste nach nicht nichts noch nun nur ob oder ohne sehr sein seine seinem
        seinen seiner seines seit selbst sich sie sind so sodass solche solchem solchen solcher soll sollte sondern
        sonst sowie über um und uns unser unsere unserem unseren unter viel vom von vor während war waren warst was
        weg weil weiter welche welchem welchen welcher welches wenn wer werde werden wie wieder will wir wird wirst wo
        wollen wollte worden wurde wurden würde würden zu zum zur zwar zwischen""",
    "greek": """
        ο η το οι τα του της των τον την τους τις στο στη στην στον στα στους στις στου και κι ή είτε αλλά όμως μα να
        θα δεν δε μη μην ας αν όταν όπως που πως πώς ποιος ποια ποιο ποιοι τι γιατί επειδή ώστε αφού ενώ με σε για από
        προς κατά μετά παρά αντί χωρίς μέχρι ως εγώ εσύ αυτός αυτή αυτό αυτοί αυτές αυτά αυτού αυτής αυτών αυτόν αυτήν
        εμείς εσείς μου σου μας σας εκείνος εκείνη εκείνο είμαι είσαι είναι είμαστε ήταν ήμουν έχω έχει έχουν είχε
        είχαν ένας μια μία ένα ενός μιας όλα όλοι όλες κάθε πολύ πιο πριν τότε τώρα εδώ εκεί μόνο επίσης ούτε όχι ναι
        οποίο οποία οποίος οποίοι οποίες οποίου οποίων""",
    "hungarian": """
        a ahhoz ahogy ahol aki akik akkor alatt amely amelyek amelyet ami amikor amit arra arról az azok azon azonban
        azt aztán azután be bár benne csak de e egy egyes egyik egyéb el ennek erre ez ezek ezen ezért ezt én és fel
        felé ha hanem ha hogy hogyan három igen így ill illetve is itt jól kell kellett keresztül ki kívül között le
        lehet lehetett lesz lett maga már más meg még mellett mert mely melyek mi mint mit mivel most nagyon ne nekem
        neki nem nincs olyan ott össze ők őket ő pedig saját s sem sok számára szerint szinte talán tehát több után
        ugyanis úgy új utolsó vagy vagyok valaki valami való van vannak vele vissza viszont volt voltak voltam volna""",
    "indonesian": """
        ada adalah agar akan aku anda antara apa apakah atas atau bagi bahwa banyak beberapa begitu belum bisa bukan
        dalam dan dapat dari dengan di dia hanya harus hingga ia ini itu jika juga kami karena ke kepada ketika kita
        lagi lain lebih maka mana masih mereka namun oleh pada para paling pernah saat saja sangat saya seorang sebagai
        sebelum sebuah secara sedang sehingga sejak selama semua seperti serta sesuai setelah setiap siapa suatu sudah
        tanpa telah tentang terhadap tersebut tetapi tidak untuk yaitu yang""",
    "italian": """
        a abbia abbiamo abbiano ad agli ai al alla alle allo altra altre altri altro anche ancora avere aveva avevano
        c che chi ci ciò coi col come con contro cosa così cui d da dagli dai dal dalla dalle dallo degli dei del della
        delle dello dentro di dopo dove dunque durante e è ed era erano essere fino fra fu furono gli già ha hai hanno
        ho i il in io l la le lei li lo loro lui ma me mentre mi mia mie miei mio molto ne negli nei nel nella nelle
        nello no noi non nostra nostre nostri nostro o ogni oppure per perché però più poi prima può qual quale quali
        quando quanto quasi quella quelle quelli quello questa queste questi questo qui quindi sarà saranno se sei
        senza si sia siamo siano sono sotto sta stata state stati stato su sua sue sugli sui sul sulla sulle sullo suo
        suoi tale tali tra tu tua tue tuo tuoi tutta tutte tutti tutto un una uno vi voi vostra vostro c'è l'altro
        un'altra dell'altro""",
    "norwegian": """
        alle at av bare begge ble bli blir blitt både da de deg dei deim deira deires dem den denne der dere deres det
        dette di din disse ditt du då eg ein eit eitt eller elles en enn er et ett etter for fordi fra få før ha hadde
        han hans har hennar henne hennes her hjå ho hun hva hvem hver hvilke hvilken hvis hvor hvordan hvorfor i ikke
        ikkje ingen inn ja jeg kan korleis kva kvar kven kvifor kun kunne kva man mange me med medan meg meget mellom
        men mens mer mest mi min mine mitt mot må ned no noe noen nokon noko nå når og også om opp oss over på samme
        seg selv si sia sin sine sitt skal skulle slik so som somme så til um under upp ut uten var vart varte ved vere
        verte vi vil ville vore vors vort vår være vært å""",
    "persian": """
        و در به از که این را با است برای آن یک خود تا کرد بر هم نیز گفت می شد او ما اما یا شده باید هر آنها بود اگر
        دیگر دو مورد کند شود کنند بین پیش پس هیچ همه چه چون بعد روی زیر نمی ای های ها اند بودند دارد دارند داشت هستند
        نیست من تو شما ایشان وی آنان همین همان چنین چنان کردن شدن بودن خواهد توسط درباره طور چرا کجا کی وقتی ولی بی""",
    "polish": """
        a aby ale ani bardzo bez bo być będą będzie był była było były by byli chce choć ci ciebie cię co czy czyli dla
        do dlaczego dlatego gdy gdyż gdzie go i ich im inne innych iż ja jak jakie jako je jeden jednak jednym jego
        jej jemu jest jestem jeszcze jeśli jeżeli już kiedy kilka kto która które którego której który których którym
        którzy lecz lub ma mają mam między mi mimo mnie moje może można mu my na nad nam nami nas nasz nawet nic nich
        nie niej nim niż no o od ona one oni ono oraz pan po pod podczas ponieważ przed przez przy również sam się są
        sobie swoje ta tak także tam te tego tej ten teraz też to tu tutaj twój ty tych tylko tym u w wam was we więc
        wszystko wszystkich wy z za zawsze ze że żeby""",
    "portuguese": """
        a à ao aos aquela aquelas aquele aqueles aquilo as às até cada com como contra da das de dela delas dele deles
        depois desde do dos e é ela elas ele eles em enquanto entre era eram essa essas esse esses esta está estamos
        estão estar estas estava estavam este esteve estes estou eu foi foram fosse há haja isso isto já la lhe lhes lo
        mais mas me mesmo meu meus minha minhas muito muitos na não nas nem no nos nós nossa nossas nosso nossos num
        numa o onde os ou outra outras outro outros para pela pelas pelo pelos perante pode podem por porque pois quais
        qual quando quanto que quem quê são se seja sejam sem ser será serão seu seus sido só sob sobre somos sou sua
        suas também tal tanto te tem têm tendo ter teu teus teve tinha tinham toda todas todo todos tu tua tuas tudo
        um uma umas uns você vocês vos""",
    "romanian": """
        a acea aceasta această aceea acei aceia acel acela acele acelea acest acesta aceste acestea acești aceștia
        acestui acestei ai aici al ale alt alta altă altceva alte alți am ar are as aș asemenea asta astfel așa ați au
        avea avem aveți azi ca că când care cărei căror cărui ce cea cei cel cele celor cine conform cu cum da dacă dar
        dată de deasupra deci decât deja deoarece departe despre deși din după ea ei el ele era erau este eu face fără
        fi fie fiecare fiind fost iar îi îl îmi în înainte încă într între își îți la le li lor lui mai mea mei mele
        mult multă mulți mă ne nici niște noastre noastră nostru noștri nu o ori orice pe pentru peste poate prin
        printr sa să sale sau săi se și sunt sub sus ta tale te toate toată tot toți tu un una unde unei unele unii
        unor unui va vă voastre vom vor vreo""",
    "russian": """
        а без более больше будет будто будут бы был была были было быть в вам вами вас вдруг ведь во вот впрочем все
        всего всех всю вы где да даже два для до другой его ее ей ему если есть еще ж же за зачем здесь и из или им
        ими их к как какая какой когда которая которого которой которые который которых кто куда ли лучше между меня
        мне много может можно мой моя мы на над надо наконец нас не него нее ней нельзя нет ни нибудь никогда ним них
        ничего но ну о об один он она они оно опять от перед по под после потом потому почти при про раз разве с сам
        свою своего своей себе себя со совсем так также такой там тебя тем теперь то тогда того тоже только том тот
        три тут ты у уж уже хоть хорошо хотя чего чей чем через что чтоб чтобы чуть эта эти этих это этого этой этом
        этот эту я являются является""",
    "spanish": """
        a al algo algunas algunos ante antes aquel aquella aquellas aquellos aunque cada como con contra cual cuales
        cualquier cuando cuanto de del desde donde dos durante e el él ella ellas ellos en entre era eran eres es esa
        esas ese eso esos esta está estaba estaban estado están estar estas este esto estos estoy fue fueron fuese ha
        haber había habían hace hacia han has hasta hay he la las le les lo los más me mi mí mis mientras misma mismo
        mucho muchos muy nada ni no nos nosotros nuestra nuestras nuestro nuestros o os otra otras otro otros para pero
        poco por porque pues puede pueden que qué quien quienes se sea sean según ser será serán si sí sido siendo sin
        sino so sobre solo sólo son soy su sus suya suyo tal también tampoco tan tanto te tenía tiene tienen todo
        todas todos tras tu tus tuya tuyo un una unas uno unos usted ustedes vosotros y ya yo""",
    "swedish": """
        alla allt att av blev bli blir blivit både de dem den denna deras dess dessa det detta dig din dina ditt du där
        då efter ej eller en er era ert ett från för genom ha hade han hans har hela henne hennes hon honom hur här i
        icke in ingen inget inom inte jag ju kan kunde man med medan mellan men mer mig min mina mitt mot mycket måste
        ni nu någon något några när och också om oss på samma sedan sig sin sina sitt själv ska skall skulle som så
        sådan sådana till under upp ur ut utan vad var vara varför varit varje vars vart vem vi vid vilka vilkas vilken
        vilket vår våra vårt än är åt över""",
    "turkish": """
        acaba ama ancak aslında artık aynı az bana bazı belki ben benden beni benim beri bile bir biri birkaç birçok
        biz bizden bizi bizim böyle böylece bu buna bunda bundan bunlar bunları bunların bunu bunun burada çok çünkü
        da daha de defa değil diğer diye dolayı dolayısıyla edilen eden en gibi göre hala halen hangi hatta hem henüz
        hep hepsi her herhangi herkes hiç hiçbir için ile ilgili ise işte itibaren kadar karşın kendi kez ki kim kimse
        mı mi mu mü nasıl ne neden nedenle nerede niye o olan olarak oldu olduğu olduğunu olması olmak olsa olur ona
        ondan onlar onlardan onları onların onu onun orada oysa pek rağmen sadece sanki sen senin siz sizin şey şöyle
        şu şunu tarafından tüm üzere var ve veya ya yani yerine yine yoksa zaten""",
}

LANGUAGES = (*_STOP_WORDS, "none")
"""What `lexical.language` can be, besides `auto`: those with a Snowball stemmer and stop words, and `none`."""


@cache
def stop_words(language: str) -> frozenset[str]:
    """Case folded, with straight apostrophes; empty for `none` and for a language without a list."""
    return frozenset(_STOP_WORDS.get(language, "").casefold().split())


def detect_language(texts: Sequence[str]) -> str:
    """The language of more than half of the texts that have one.

    A text is in the language whose stop words it uses most; stop words of several languages count for each. Text in
    scripts without spaces is left out, since its analysis needs no language.

    Returns:
        One of `LANGUAGES`; `none` where no language has more than half, as in a collection of several languages, and
        where no text has enough words to tell.
    """
    votes = Counter(map(_language_of, texts))
    del votes["none"]
    if not votes:
        # Texts too short to tell alone, such as titles and rows of tables, can do so together.
        return _language_of(" ".join(texts), words=_SAMPLE_WORDS * 10)
    language, count = votes.most_common(1)[0]
    return language if count * 2 > votes.total() else "none"


def _language_of(text: str, *, words: int = _SAMPLE_WORDS) -> str:
    sample = text[: words * 20]
    if len(_UNSPACED.findall(sample)) * 4 > len(sample):
        return "none"
    found = islice(_WORD.finditer(text), words)
    counts = Counter(match[0].casefold().replace("’", "'") for match in found)
    uses = {language: sum(counts[word] for word in counts.keys() & stop_words(language)) for language in _STOP_WORDS}
    language = max(uses, key=uses.__getitem__)
    is_tied = sum(count == uses[language] for count in uses.values()) > 1
    if counts.total() < _FEWEST_WORDS or is_tied or uses[language] < _LEAST_SHARE * counts.total():
        return "none"
    return language
