"""What the OpenAI stand-in says of a person's texts: only what can be counted in them."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import count

COMMON_WORDS = frozenset(
    """about after again also always because been before being between could does doing each every
    from have having here into just like more most much never often only other over really should
    since some still such than that their them then there these they thing things this those through
    under very want well were what when where which while will with would your""".split()  # noqa: SIM905 (a list of words reads better so)
)
SHORTEST_NOTABLE = 4  # letters
LONGEST = 40  # letters of a word that are repeated


class Counted:
    """The words and sentences of some texts, and what can be said of them."""

    def __init__(self, texts: list[str]) -> None:
        words = [word for text in texts for word in _words(text)]
        parts = [part for text in texts for part in re.split(r"[.!?…。]+", text)]
        notable = [word.lower()[:LONGEST] for word in words if len(word) >= SHORTEST_NOTABLE]
        self.times = Counter(word for word in notable if word not in COMMON_WORDS)
        # What comes up most is first; of words that come up as often, the longest.
        order = sorted(self.times, key=lambda word: (-self.times[word], -len(word)))
        self.notable = order or ["a short text"]
        self.words = len(words)
        self.sentences = len([part for part in parts if len(_words(part)) > 1])
        self.longest = max(words, key=len, default="")[:LONGEST]

    def opening(self) -> str:
        """Two sentences that hold for any text."""
        if not self.words:
            return "You wrote no words that could be counted."
        wrote = f"You wrote {_plural(self.words, 'word')}"
        if self.sentences:
            wrote += f" in {_plural(self.sentences, 'sentence')}"
        return (
            f"{wrote}; the longest word is “{self.longest}”. "
            f"What you return to most is {self.notable[0]}."
        )

    def mentions(self) -> Iterator[str]:
        """A short sentence about each notable word, and then about each once more."""
        for word, again in self.repeated():
            number = max(1, self.times[word])
            times = {1: "once", 2: "twice"}.get(number, f"{number} times")
            start = f"Once more ({again}): you" if again > 1 else "You"
            yield f"{start} wrote “{word}” {times}."

    def labels(self) -> Iterator[str]:
        """The notable words; then again, with a number."""
        for word, again in self.repeated():
            yield f"{word} {again}" if again > 1 else word

    def repeated(self) -> Iterator[tuple[str, int]]:
        """The notable words, over and over, and which time it is."""
        for again in count(1):
            for word in self.notable:
                yield word, again


def texts_in(value: object) -> Iterator[str]:
    """All texts in a JSON value, names of fields excepted."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
