"""What the browser is given to remember."""

from datetime import timedelta
from typing import Annotated, Literal

import pytest
from pydantic import Field

from common.form import Form
from page.entries import Mark, entry
from page.quoted import first_words, shorten
from page.snapshot import Snapshot
from page.texts import UNKNOWN_USUAL
from tests.fakes import ADA, ID, NOW
from tests.states import TTL, WAITING

USUAL = timedelta(seconds=8)


def test_the_browser_remembers_times_state_token_and_the_first_words() -> None:
    kept = entry(Snapshot(ID, WAITING), TTL, "token", usual=USUAL)

    assert kept
    assert kept.model_dump() == {
        "request_id": ID,
        "state": "Waiting",
        "mark": "waiting",
        "is_over": False,
        "is_lost": False,
        "created_at": NOW,
        "begun_at": NOW,
        "ready_at": WAITING.next_attempt_at + USUAL,
        "kept_until": WAITING.deadline_at + TTL,
        "owner_token": "token",
        "label": ADA.description,
    }
    assert entry(Snapshot(ID, failures=1), TTL) is None
    gone = entry(Snapshot(ID, is_gone=True), TTL)
    assert gone
    assert (gone.state, gone.mark, gone.is_over) == ("No longer kept", Mark.GONE, True)


def test_nobody_but_the_owner_is_given_the_words() -> None:
    stranger = entry(Snapshot(ID, WAITING), TTL)

    assert stranger
    assert stranger.label is None
    assert stranger.ready_at == WAITING.next_attempt_at + UNKNOWN_USUAL
    owner = entry(Snapshot(ID, WAITING), TTL, is_owner=True)
    assert owner
    assert (owner.label, owner.owner_token) == (ADA.description, None)


class Letter(Form):
    sender: Annotated[str, Field(max_length=80)]
    body: Annotated[str | None, Field(max_length=2000)] = None


class Order(Form):
    size: Literal["small", "large"]
    count: int


def test_the_label_is_of_the_first_long_text_else_of_the_first_text_if_any() -> None:
    assert first_words(Letter(sender="Ada", body="Dear all,\n\nit rains.")) == "Dear all, it rains."
    assert first_words(Letter(sender="Ada")) == "Ada"
    assert first_words(Order(size="small", count=1)) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Short.", "Short."),
        (" \n\u200b ", ""),
        ("x" * 40, "x" * 40),
        ("I mend old radios and teach evening classes", "I mend old radios and teach evening…"),
        ("I mend old radios and teach evenings to all", "I mend old radios and teach evenings to…"),
        ("x" * 41, "x" * 40 + "…"),
        ("Yes " + "x" * 60, "Yes " + "x" * 36 + "…"),
        ("你好" * 40, "你好" * 20 + "…"),
    ],
)
def test_words_are_cut_between_them(text: str, words: str) -> None:
    assert shorten(text, 40) == words
