"""Which texts count as written: in the form, and in what the model answers."""

import pytest
from pydantic import ValidationError

from common.form import problems
from tests.fakes import ANALYSIS
from tests.toy.task import Analysis, AnalysisInput

GOOD = {"name": "Ada", "age": 36, "description": "I sketch machines."}
EMPTY = "Please fill this in."
TOO_SHORT = "Please write at least 10 characters."


def problems_of(changes: dict[str, object]) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        AnalysisInput.model_validate(GOOD | changes)
    return problems(AnalysisInput, caught.value)


NOTHING = [
    pytest.param("\u200b" * 12, id="zero width space"),
    pytest.param("\u200c\u200d" * 6, id="joiners"),
    pytest.param("\u2060\ufeff" * 6, id="word joiner and byte order mark"),
    pytest.param("\u00ad" * 12, id="soft hyphen"),
    pytest.param("\u200e\u200f\u061c\u202e\u2066\u2069" * 2, id="bidi controls"),
    pytest.param("\u115f\u1160\u3164\uffa0" * 3, id="Hangul fillers"),
    pytest.param("\u2800" * 12, id="blank Braille"),
    pytest.param("\ufe00\ufe0f\U000e0100\U000e01ef" * 3, id="variation selectors"),
    pytest.param("\u180b\u180e\u180f" * 4, id="Mongolian selectors"),
    pytest.param("\u17b4\u17b5" * 6, id="Khmer inherent vowels"),
    pytest.param("\u2061\u2063\u206a" * 4, id="invisible operators"),
    pytest.param("\U000e0001\U000e0041\U000e007f" * 4, id="tags"),
    pytest.param("\u0301\u20dd" * 6, id="marks without a base"),
    pytest.param("\u0301 \u0301\u034f" * 6, id="marks after spaces"),
    pytest.param("\u1680\u2003\u3000\u00a0" * 3, id="wide and narrow spaces"),
    pytest.param("\n\u2028\u2029\u200b\n" * 3, id="lines of nothing"),
    pytest.param("\ufff9\ufffa\ufffb\ufffc" * 3, id="annotations and placeholders"),
    pytest.param("\U0001d159\U0001d173\U00013441" * 4, id="blank notes and hieroglyphs"),
    pytest.param("\ufdd0\uffff\U0010ffff" * 4, id="noncharacters"),
    pytest.param("\u2065\ufff0\U000e0fff" * 4, id="ignorable though unassigned"),
]


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\x85", "\ud800"])
@pytest.mark.parametrize("field", ["name", "description"])
def test_what_no_form_sends_is_to_be_removed(field: str, character: str) -> None:
    found = problems_of({field: f"I sketch {character}machines."})

    assert found == {field: "Remove the characters that can't be displayed."}


@pytest.mark.parametrize("field", ["name", "description"])
@pytest.mark.parametrize("nothing", NOTHING)
def test_a_text_that_draws_nothing_is_empty(nothing: str, field: str) -> None:
    assert problems_of({field: nothing}) == {field: EMPTY}


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize("field", ["summary", "tone", "themes", "suggestions"])
def test_an_answer_that_draws_nothing_is_refused(nothing: str, field: str) -> None:
    value = nothing if field in ("summary", "tone") else ["a theme", nothing]

    with pytest.raises(ValidationError):
        Analysis.model_validate(ANALYSIS.model_dump() | {field: value})


@pytest.mark.parametrize(
    "padded",
    [
        pytest.param("I sketch\u200b\u200b\u200b", id="ends invisibly"),
        pytest.param("\u2800".join("I sketch"), id="filled with blanks"),
        pytest.param("a" + "\ufe0f" * 20, id="one letter and selectors"),
        pytest.param("a" + " " * 20 + "b", id="one long gap"),
        pytest.param("a \u0301 \u0301 \u0301 \u0301 b", id="marks on spaces"),
        pytest.param("👨‍👩‍👧‍👦 👨‍👩‍👧‍👦", id="two families"),
    ],
)
def test_only_visible_characters_count_towards_the_shortest_description(padded: str) -> None:
    assert problems_of({"description": padded}) == {"description": TOO_SHORT}


@pytest.mark.parametrize(
    ("name", "description"),
    [
        pytest.param("A", "I draw now", id="a name of one letter"),
        pytest.param("王", "我喜欢画机器和散步很久", id="Chinese"),
        pytest.param("श्री", "मैं मशीनें बनाती हूँ।", id="Hindi"),
        pytest.param("ক্\u200dষ", "আমি ছবি আঁকি।", id="Bengali with a joiner"),
        pytest.param("ศรี", "ฉันชอบวาดรูป", id="Thai"),
        pytest.param("مُحَمَّد", "أُحِبُّ الرَّسْمَ", id="Arabic with harakat"),
        pytest.param("می\u200cشا", "می\u200cخواهم نقاشی کنم", id="Persian with non-joiner"),
        pytest.param("שָׁלוֹם", "אֲנִי מְצַיֵּר מְכוֹנוֹת", id="Hebrew with points"),
        pytest.param("\u200fדוד\u200e", "\u2067אני מצייר\u2069 daily", id="bidi marks"),
        pytest.param("김", "나는 기계를 그립니다.", id="Korean"),
        pytest.param("\u1112\u1161\u11ab", "\u1112\u1161\u11ab" * 4, id="Korean in jamo"),
        pytest.param("e\u0301", "J'aime le cafe\u0301", id="decomposed accent"),
        pytest.param("ᠮᠣᠩ\u180b", "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ", id="Mongolian"),
        pytest.param(
            "葛\U000e0100", "葛\U000e0100城市に住んでいる人です", id="ideographic variant"
        ),
        pytest.param("🇯🇵", "🇯🇵🇩🇪🇫🇷🇮🇳🇧🇷", id="flags"),
        pytest.param(
            "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
            "I play football",
            id="flag of tags",
        ),
        pytest.param("👨‍👩‍👧‍👦", "My family 👨‍👩‍👧‍👦", id="family"),
        pytest.param("❤️", "I ❤️ to sketch", id="heart with a selector"),
        pytest.param("1️⃣", "1️⃣2️⃣3️⃣4️⃣5️⃣", id="keycaps"),
        pytest.param("👍🏽", "👍🏽👍🏽👍🏽👍🏽👍🏽", id="skin tones"),
        pytest.param("\U0001fae9", "I am tired \U0001fae9", id="emoji newer than Python"),
        pytest.param("\uf8ff", "\uf8ff makes machines", id="private use"),
    ],
)
def test_every_script_is_taken_as_it_was_written(name: str, description: str) -> None:
    given = AnalysisInput.model_validate(GOOD | {"name": name, "description": description})
    answer = Analysis.model_validate(ANALYSIS.model_dump() | {"summary": description, "tone": name})

    assert (given.name, given.description) == (name, description)
    assert (answer.tone, answer.summary) == (name, description)


def test_text_is_trimmed_and_keeps_its_lines() -> None:
    given = AnalysisInput.model_validate(GOOD | {"description": "  first line\nsecond 🌱  "})

    assert given.description == "first line\nsecond 🌱"
