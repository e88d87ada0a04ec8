"""Short lists of words that carry grammar rather than content, so that they are never players.

Our own lists, for seven languages; other languages have none, and there every word may be a player. One combined
list would not do: `die` is an article in German and a verb in English, `sin` a preposition in Spanish and a noun
in English. So the language of a text is the one whose list holds most of its words, English where none does.

Negations (`not`, `no`) count as stop words, as they do in the work that this follows (arXiv 2605.17967).
"""

import re
from collections.abc import Iterable

_ENGLISH = """
a about above after again all also although am an and any are as at be because been before being below between both
but by can could did do does doing don didn doesn isn wasn weren aren won wouldn couldn shouldn haven hasn hadn ain
down during each few for from further had has have having he her here hers herself him himself his how i if in into
is it its itself just let ll m me might more most must my myself no nor not now of off on once only or other our
ours ourselves out over own re s same shall she should so some such t than that the their theirs them themselves
then there these they this those though through to too under until up upon us ve very was we were what when where
which while who whom whose why will with would yet you your yours yourself yourselves d
"""

_GERMAN = """
aber alle allem allen aller alles als also am an ander andere anderen auch auf aus bei beim bin bis bist da damit
dann das dass daß dein deine dem den denn der des dich die dies diese diesem diesen dieser dieses dir doch dort du
durch ein eine einem einen einer eines er es etwas euch euer für gegen hab habe haben hat hatte hatten hier hin
hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jeden jeder jedes jetzt kann kein keine
können könnte man mein meine meinem meinen meiner mich mir mit muss nach nicht noch nun nur ob oder ohne sehr sein
seine seinem seinen seiner selbst sich sie sind so soll sondern über um und uns unser unsere unter vom von vor war
waren warum was weil welche welcher wenn wer werden wie wieder will wir wird wo wurde wurden zu zum zur zwischen
"""

_FRENCH = """
a à afin ai ainsi alors après as au aucun aussi autre aux avaient avais avait avant avec avez avoir avons bien c car
ce ceci cela celle celles celui ces cet cette ceux chez comme comment d dans de depuis des donc dont du elle elles en
encore entre es est et étaient était été êtes être eu eux fait font furent fut il ils j je jusqu l la le les leur
leurs lors lui m ma mais me même mes moi mon n ne ni nos notre nous on ont ou où par parce pas peu peut plus pour
pourquoi qu quand que quel quelle quelles quels qui s sa sans se sera ses si soit sommes son sont sous suis sur t ta
te tes toi ton tous tout toute toutes très tu un une vers vos votre vous y
"""

_SPANISH = """
a al algo algunas alguno algunos ante antes aquel aquella así aún aunque bajo cada casi como cómo con contra cual
cuál cuando cuándo de del desde donde dónde dos durante e el él ella ellas ellos en entre era eran eres es esa esas
ese eso esos esta está están estas este esto estos estoy fue fueron ha había han has hasta hay he la las le les lo
los más me mi mí mientras mis mucho muy nada ni no nos nosotros nuestra nuestro o os otra otro otros para pero poco
por porque pues que qué quien quién se sea según ser si sí sido sin sobre sois somos son soy su sus también tan
tanto te ti tiene todo todos tu tú tus un una unas uno unos usted ustedes y ya yo
"""

_ITALIAN = """
a abbiamo ad agli ai al alla alle allo anche ancora avere aveva avevano c ce che chi ci ciò coi col come con contro
cosa così cui d da dagli dai dal dalla dalle dallo degli dei del dell della delle dello dentro di dopo dove due e è
ed era erano essere fa fino fra fu gli ha hai hanno ho i il in io l la le lei li lo loro lui ma me mentre mi mia mie
miei mio molto ne né negli nei nel nell nella nelle nello no noi non nostra nostro o ogni oppure per perché però più
poi prima qua quale quando quanto quella quelle quelli quello questa queste questi questo qui se sei senza si sì
sia siamo siete sono sopra sotto sta stata stato su sua sue sugli sui sul sull sulla sulle suo suoi te ti tra tu
tua tue tuo tuoi tutti tutto un una uno vi voi vostra vostro all dall
"""

_PORTUGUESE = """
a à ainda algo alguém algum alguma ante antes ao aos apenas aquela aquele aquilo as às assim até cada com como contra
da daquele das de dela dele deles depois desde dessa desse desta deste do dos e é ela elas ele eles em enquanto
entre era eram essa essas esse esses esta está estão estas estava este estes eu foi fomos for foram há isso isto já
la lhe lhes lo mais mas me mesmo meu meus minha minhas muito muitos na não nas nem nenhum no nos nós nossa nosso num
numa o os ou para pela pelas pelo pelos per pois por porque porém pouco qual quando quanto que quem se seja sem ser
seu seus si sido só sob sobre sou sua suas também tão te tem têm tenho ter teu teve ti tinha todo todos tu tua tudo
um uma umas uns vai você vocês vos
"""

_DUTCH = """
aan al alle alleen alles als altijd andere ben bent bij binnen daar daarom dan dat de der deze die dit doch doen
door dus een eens en er ge geen had hadden heb hebben hebt heeft hem hen het hier hij hoe hun iemand iets ik in is
ja je jij jou jouw jullie kan kon kunnen maar mag me meer men met mij mijn moet moeten na naar nee niet niets nog nu
of om omdat onder ons onze ook op over reeds sinds te tegen ten ter terwijl toch toen tot tussen u uit uw van veel
via voor waar waarom wanneer want waren was wat we wel welke werd werden wezen wie wij wil worden wordt zal ze
zelf zich zij zijn zo zonder zou zouden
"""

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(word.casefold() for word in words.split())
    for language, words in {
        "en": _ENGLISH,
        "de": _GERMAN,
        "fr": _FRENCH,
        "es": _SPANISH,
        "it": _ITALIAN,
        "pt": _PORTUGUESE,
        "nl": _DUTCH,
    }.items()
}
"""Stop words by language code, casefolded. A contraction stands as its parts: `don't` is `don` and `t`."""

_INNER = re.compile(r"['’\-‐‑]")


def stop_words_for(words: Iterable[str]) -> frozenset[str]:
    """The stop words of the language that a text seems to be in; English where nothing tells.

    Args:
        words: The words of the text, in any case.
    """
    folded = [part for word in words for part in _INNER.split(word.casefold())]
    # `max` takes the first of equals, and English stands first.
    return max(STOP_WORDS.values(), key=lambda stop_words: sum(part in stop_words for part in folded))


def is_stop_word(word: str, stop_words: frozenset[str]) -> bool:
    """Whether all parts of a word, between apostrophes and hyphens, are stop words."""
    return all(part in stop_words for part in _INNER.split(word.casefold()))
