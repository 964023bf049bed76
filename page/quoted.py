"""The first words of what was written, by which a person tells one request from another."""

from common.fields import visible
from common.form import Form, questions
from common.questions import Kind, Question


def quoted_questions(form: type[Form]) -> list[Question]:
    """The texts of a form, the long ones first: the first that was written is quoted."""
    asked = [question for question in questions(form) if question.kind.is_text]
    return sorted(asked, key=lambda question: question.kind is not Kind.AREA)


def first_words(form: Form, most: int = 40) -> str:
    """So many characters of it at most, cut after a word; empty if no text was written."""
    texts = (getattr(form, question.name) for question in quoted_questions(type(form)))
    return shorten(next(filter(None, texts), ""), most)


def shorten(text: str, most: int) -> str:
    """Cut a text after a word, unless that would leave little of it."""
    text = " ".join(visible(text).split())
    if len(text) <= most:
        return text
    words, _, _ = text[: most + 1].rpartition(" ")
    return (words if len(words) > most / 2 else text[:most]).rstrip(",;:.") + "…"
