"""Words as players: what counts as one, that the choice never changes, and which tokens a player owns."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import helpers
from whatstuck.datasets import Message, Row, read_rows, render
from whatstuck.errors import WhatStuckError
from whatstuck.interactions._stopwords import STOP_WORDS, is_stop_word, stop_words_for
from whatstuck.interactions.players import choose_players, place_players, player_tokens

SENTENCE = "The harbor, near the burning market: Mara found a precious lantern and a golden violin at midnight!"
WORDS = ["harbor", "near", "burning", "market", "Mara", "found", "precious", "lantern", "golden", "violin", "midnight"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return helpers.tiny_tokenizer()


@pytest.fixture(scope="module")
def characters() -> PreTrainedTokenizerFast:
    """A tokenizer whose pre-tokenizer cuts Han text into pairs, and whose bytes were never merged."""
    tokenizer = Tokenizer(models.BPE())
    pairs = pre_tokenizers.Split(Regex("\\p{Han}{1,2}"), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pairs, byte_level])
    tokenizer.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=byte_level.alphabet(), show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="module")
def superword() -> PreTrainedTokenizerFast:
    """A tokenizer that merges across spaces: "New York" and "of the" are one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["New York"] * 50 + ["king of"] * 50, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make(content: str, row_id: str = "r", players: tuple[tuple[int, int], ...] | None = None, start: int = 0) -> Row:
    return Row(row_id, (Message("user", content),), "glad", 0, "heldout", players=players, content_start=start)


def texts(row: Row, spans: Sequence[tuple[int, int]] | None) -> list[str] | None:
    return None if spans is None else [row.content[start:end] for start, end in spans]


def all_words(content: str, tokenizer: PreTrainedTokenizerFast | None = None) -> list[str]:
    """Every candidate: what is chosen when n is as large as it can be."""
    row, best = make(content), []
    for n in range(1, len(content) + 1):
        chosen = texts(row, choose_players(row, n, seed=0, tokenizer=tokenizer))
        if chosen is None:
            break
        best = chosen
    return best


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SENTENCE, WORDS),
        (
            "I don’t think it's John's well-known - e-mail_address...",
            ["think", "John's", "well-known", "e-mail", "address"],
        ),
        ("Pay $1,250.75 (or 3,4) by 2024-05-01, v2.", ["Pay", "1,250.75", "3,4", "2024-05-01", "v2"]),
        ("[NAME] ❤️ 'quoted' 👍🏽 1️⃣ #tag", ["NAME", "quoted", "1️⃣", "tag"]),
        ("Der Hund schläft, und die Katze ist auf dem Tisch", ["Hund", "schläft", "Katze", "Tisch"]),
        ("Qu'est-ce que l'homme a mangé dans la forêt ?", ["l'homme", "mangé", "forêt"]),
        ("El perro no come porque está muy triste", ["perro", "come", "triste"]),
        ("Il cane è molto triste perché non c'è nessuno", ["cane", "triste", "nessuno"]),
        ("O cão não come porque está muito triste", ["cão", "come", "triste"]),
        ("De hond is verdrietig omdat er niemand is", ["hond", "verdrietig", "niemand"]),
        ("They die of sin on the road to war", ["die", "sin", "road", "war"]),
        ("Кошка спит на крыше", ["Кошка", "спит", "на", "крыше"]),
        ("बिल्ली छत पर सोती है", ["बिल्ली", "छत", "पर", "सोती", "है"]),
        ("Cafe\u0301 de\u0301ja\u0300 vu", ["Cafe\u0301", "de\u0301ja\u0300", "vu"]),
    ],
)
def test_words(content: str, expected: list[str], tokenizer: PreTrainedTokenizerFast) -> None:
    assert all_words(content) == expected
    assert all_words(content, tokenizer) == expected  # no word shares a token here, so a tokenizer changes nothing


def test_stop_word_lists() -> None:
    assert set(STOP_WORDS) == {"en", "de", "fr", "es", "it", "pt", "nl"}
    for language, words in STOP_WORDS.items():
        assert 60 <= len(words) <= 200, language
        assert stop_words_for(sorted(words)) == words  # each list is recognised as its own language
        assert all(word == word.casefold() for word in words)
    assert stop_words_for([]) == stop_words_for(["Zebra"]) == STOP_WORDS["en"]
    assert is_stop_word("DON'T", STOP_WORDS["en"])
    assert not is_stop_word("die", STOP_WORDS["en"])


def test_the_choice_depends_on_seed_and_row_alone() -> None:
    row = make(SENTENCE)
    chosen = choose_players(row, 6, seed=0)
    # Pinned: a run that is extended must find the words it began with.
    assert texts(row, chosen) == ["harbor", "burning", "found", "lantern", "golden", "midnight"]
    assert choose_players(row, 6, seed=1) != chosen
    assert choose_players(make(SENTENCE, "other"), 6, seed=0) != chosen
    assert set(choose_players(row, 8, seed=0) or ()) > set(chosen or ())  # more players keep the others
    assert choose_players(row, len(WORDS), seed=0) is not None
    assert choose_players(row, len(WORDS) + 1, seed=0) is None
    with pytest.raises(WhatStuckError, match="must be at least 1"):
        choose_players(row, 0, seed=0)


def test_every_word_is_chosen_equally_often() -> None:
    draws, n = 3000, 4
    counts: Counter[str] = Counter()
    for index in range(draws):
        row = make(SENTENCE, f"row {index}")
        counts.update(texts(row, choose_players(row, n, seed=0)) or ())
    share = n / len(WORDS)
    spread = (draws * share * (1 - share)) ** 0.5  # of a binomial count: 26
    assert set(counts) == set(WORDS)
    assert all(abs(count - draws * share) < 4 * spread for count in counts.values())


def test_players_by_hand_win_and_instructions_are_left_alone() -> None:
    by_hand = make(SENTENCE, players=((0, 10), (17, 35)))
    assert choose_players(by_hand, 2, seed=0) == ((0, 10), (17, 35))
    assert choose_players(by_hand, 3, seed=0) is None
    row = make(f"Name feelings.\n\n{SENTENCE}", start=len("Name feelings.\n\n"))
    assert texts(row, choose_players(row, len(WORDS), seed=0)) == WORDS


class TestScriptsWithoutSpaces:
    """Players are cut by the tokenizer where no spaces cut words."""

    chinese = "合同的效力，由法律规定。ABC公司"
    thai = "แมวนอนบนหลังคา"

    def test_pieces_of_the_pre_tokenizer(self, characters: PreTrainedTokenizerFast) -> None:
        row = make(self.chinese)
        every = choose_players(row, 8, seed=0, tokenizer=characters)
        assert texts(row, every) == ["合同", "的效", "力", "由法", "律规", "定", "ABC", "公司"]

    def test_whole_characters_where_pieces_are_too_few(self, characters: PreTrainedTokenizerFast) -> None:
        row = make(self.chinese)
        every = choose_players(row, 13, seed=0, tokenizer=characters)
        assert texts(row, every) == [*"合同的效力由法律规定", "ABC", *"公司"]
        assert choose_players(row, 14, seed=0, tokenizer=characters) is None
        # Each Han character is three byte tokens here (as is "ABC"), and its player owns all of them.
        tokens = player_tokens(characters, row.content, every or ())
        assert [last - first for first, last in tokens] == [3] * 13
        assert len(all_words(self.thai, characters)) == len(self.thai)

    def test_merged_tokens_stay_whole(self) -> None:
        tokenizer = helpers.tiny_tokenizer()
        tokenizer.add_tokens(["合同", "效力"])
        row = make("合同的效力")
        assert texts(row, choose_players(row, 3, seed=0, tokenizer=tokenizer)) == ["合同", "的", "效力"]
        assert choose_players(row, 4, seed=0, tokenizer=tokenizer) is None

    def test_a_tokenizer_is_asked_for(self) -> None:
        with pytest.raises(WhatStuckError, match="row r: its script puts no spaces between words"):
            choose_players(make(self.thai), 2, seed=0)
        assert choose_players(make("The harbor burns. 合同"), 2, seed=0) is not None  # words enough without


class TestTokens:
    """From spans to token ranges."""

    def test_a_player_owns_the_tokens_that_spell_it(self, tokenizer: PreTrainedTokenizerFast) -> None:
        row = make(SENTENCE)
        rendered = render(row, tokenizer)
        spans = place_players(row, rendered, choose_players(row, 8, seed=3, tokenizer=tokenizer) or ())
        ids = tokenizer(rendered.prompt, add_special_tokens=False)["input_ids"]
        decoded = [
            tokenizer.decode(ids[first:last]) for first, last in player_tokens(tokenizer, rendered.prompt, spans)
        ]
        assert [text.strip() for text in decoded] == [rendered.prompt[start:end] for start, end in spans]

    def test_shared_tokens_are_refused_and_left_out_of_the_choice(self, superword: PreTrainedTokenizerFast) -> None:
        prompt = "New York hails the king of hearts"
        assert superword.tokenize(prompt)[0] == "NewĠYork"
        with pytest.raises(WhatStuckError, match="players 'New' and 'York' share the token 'New York'"):
            player_tokens(superword, prompt, [(0, 3), (4, 8)])
        assert player_tokens(superword, prompt, [(0, 8)]) == ((0, 1),)
        assert all_words(prompt) == ["New", "York", "hails", "king", "hearts"]
        assert all_words(prompt, superword) == ["hails", "hearts"]  # "king" shares its token with a stop word

    def test_bad_spans_and_tokenizers(self, tokenizer: PreTrainedTokenizerFast) -> None:
        for span in [(-1, 2), (2, 2), (3, 1), (90, 200)]:
            with pytest.raises(WhatStuckError, match="lies outside the prompt"):
                player_tokens(tokenizer, SENTENCE, [span])
        dropping = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"harbor": 0})))
        dropping.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[^a-z]+"), "removed")
        assert player_tokens(dropping, "harbor HARBOR", [(0, 6)]) == ((0, 1),)
        with pytest.raises(WhatStuckError, match="player 'HARBOR' has no token of its own"):
            player_tokens(dropping, "harbor HARBOR", [(7, 13)])
        assert all_words("harbor HARBOR", dropping) == ["harbor"]

        class Slow:
            is_fast = False

        with pytest.raises(WhatStuckError, match="Slow gives no character offsets: use a fast tokenizer"):
            player_tokens(Slow(), SENTENCE, [(0, 3)])  # type: ignore[arg-type] # all that is looked at

    def test_placing_refuses_what_is_outside(self, tokenizer: PreTrainedTokenizerFast) -> None:
        row = make("Name it.\n\n  harbor lantern ", start=len("Name it.\n\n"))
        rendered = render(row, tokenizer)
        (placed,) = place_players(row, rendered, [(12, 18)])
        assert rendered.prompt[slice(*placed)] == "harbor"
        for span in [(0, 4), (11, 18), (19, 27), (18, 18)]:
            with pytest.raises(WhatStuckError, match="is not in the part of the prompt that players come from"):
                place_players(row, rendered, [span])

    # Any text: whatever is chosen can be placed and masked, and no two players touch one token.
    @settings(max_examples=100)
    @given(
        content=st.text(st.characters(exclude_categories=["Cs", "Co"]), min_size=1, max_size=40).filter(str.strip),
        n=st.integers(1, 4),
    )
    def test_whatever_is_chosen_has_tokens(self, tokenizer: PreTrainedTokenizerFast, content: str, n: int) -> None:
        row = make(content)
        chosen = choose_players(row, n, seed=0, tokenizer=tokenizer)
        if chosen is None:
            return
        assert len(chosen) == n
        assert list(chosen) == sorted(chosen)
        rendered = render(row, tokenizer)
        placed = place_players(row, rendered, chosen)
        ranges = player_tokens(tokenizer, rendered.prompt, placed)
        assert all(first < last for first, last in ranges)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges))


@pytest.mark.parametrize("name", ["stories260k", "tiny"])
def test_real_rows(shared_data: Callable[[str], Path], tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    used = tokenizer if name == "tiny" else AutoTokenizer.from_pretrained(shared_data("stories260k") / "hf")
    rows = read_rows(shared_data("goemotions") / "dev.tsv", columns=["text", "label", "id"], limit=300)
    rows += read_rows(shared_data("gsm8k") / "test.jsonl", limit=100)
    kept = 0
    for row in rows:
        chosen = choose_players(row, 6, seed=0, tokenizer=used)
        assert chosen == choose_players(row, 6, seed=0)  # both tokenizers keep words apart
        if chosen is None:
            continue
        kept += 1
        rendered = render(row, used)
        placed = place_players(row, rendered, chosen)
        ids = used(rendered.prompt, add_special_tokens=False)["input_ids"]
        for (start, end), (first, last) in zip(placed, player_tokens(used, rendered.prompt, placed), strict=True):
            word = rendered.prompt[start:end]
            # The tokens spell the word, and beside it nothing but a space and punctuation.
            assert word in used.decode(ids[first:last])
            assert not any(c.isalnum() for c in used.decode(ids[first:last]).replace(word, "", 1))
    assert kept > 200
