"""The task's examples, as they are offered for an empty form."""

from collections.abc import Sequence

from common.form import questions
from common.questions import Kind, Question
from common.task import TASK


def quoted_text(asked: Sequence[Question]) -> Question | None:
    """The text whose beginning names an example: the first long one, else the first."""
    texts = [question for question in asked if question.kind.is_text]
    areas = [question for question in texts if question.kind is Kind.AREA]
    return next(iter(areas or texts), None)


def names_of_examples() -> tuple[str, ...]:
    """The first words of each, or its number where none has a text."""
    quoted = quoted_text(questions(TASK.form))
    texts = [getattr(example, quoted.name) if quoted else None for example in TASK.examples]
    return tuple(
        f"“{first_words(text)} …”" if text else f"Example {number}"
        for number, text in enumerate(texts, 1)
    )


def first_words(text: str, most: int = 18) -> str:
    """As many whole words as there is room for, but one at least."""
    words = text.split()
    while len(" ".join(words)) > most and words[1:]:
        words.pop()
    return " ".join(words)[:most].rstrip(",;:.")
