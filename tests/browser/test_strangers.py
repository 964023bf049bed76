"""Strangers, and hostile text."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import (
    expect,
)

from tests.browser.visits import OWNER_HASH, SCREENS, Visiting, wait_for_quiet
from tests.chromium import PHONE
from tests.fakes import ADA, ID
from tests.http_server import HttpServer, answer, serve
from tests.model_replies import refusal, response
from tests.product import Product
from tests.toy.task import Analysis
from tests.walk import HEADINGS, SHARED

pytestmark = pytest.mark.browser


def test_a_stranger_sees_state_and_result_but_neither_text_nor_buttons(
    visit: Visiting, product: Product
) -> None:
    product.put(ID, "waiting", owner_hash=OWNER_HASH)
    stranger = visit(ID)
    for state in ("waiting", "processing", "done", "failed", "cancelled"):
        product.put(ID, state, owner_hash=OWNER_HASH)
        stranger.page.reload()
        stranger.expect_heading(SHARED if state == "done" else HEADINGS[state])
        stranger.expect_text(f"Reference: {ID}")
        stranger.settle()

        for name in ("Cancel", "Try again", "Change the text", "Delete"):
            expect(stranger.button(name)).to_have_count(0)
        sent = b"".join(stranger.received)
        assert ID.encode() in sent  # so anything else would be found
        for secret in (ADA.description, OWNER_HASH):
            assert secret.encode() not in sent
            assert secret not in stranger.page.content()


# ── Hostile text ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def canary() -> Iterator[HttpServer]:
    """A server that nobody has a reason to ask."""
    with serve(answer(200)) as server:
        yield server


def hostile(canary: HttpServer) -> str:
    """What Markdown, HTML, LaTeX, Streamlit and a browser could take for more than text."""
    url = canary.url
    return (
        f'<img src="{url}/a" onerror="alert(1)"> ![x]({url}/b) [link]({url}/c) {url}/d '
        f"<script>alert(1)</script> <style>body {{ display: none }}</style> "
        f'<iframe src="{url}/e"></iframe> <a href="javascript:alert(1)">x</a> '
        r"$\LaTeX$ $$\frac{1}{2}$$ `code` **bold** :material/delete: :red[red] :smile: ~~gone~~ "
        "{time} {at} &amp; \u202eRIGHT TO LEFT\u202c \u200fשלום </div></p></section>"
    )


def test_hostile_text_is_text_wherever_it_is_shown(
    visit: Visiting, product: Product, canary: HttpServer
) -> None:
    text = hostile(canary)
    analysis = Analysis(summary=text, tone=text, themes=[text], suggestions=[text, text])
    product.model = answer(200, response(analysis.model_dump_json(), model=text))
    sender = visit()
    sender.submit(name=text[:80], description=text)
    sender.expect_heading("Your analysis")
    for size, scheme in SCREENS:
        sender.page.set_viewport_size(size)
        sender.page.emulate_media(color_scheme=scheme)

        sender.expect_shown(" ".join(text.split()), 5)
        sender.settle()
        wait_for_quiet(sender)  # time to ask for what would be an image
        live = sender.page.locator(f'[src*="{canary.url}"], [href*="{canary.url}"]')
        expect(live).to_have_count(0)
        sender.expect_fits()
    assert canary.requests == []


def test_hostile_text_comes_back_to_its_sender_as_it_was(
    visit: Visiting, product: Product, canary: HttpServer
) -> None:
    text = hostile(canary)
    product.model = answer(200, refusal())
    sender = visit()
    sender.submit(name=text[:80], description=text)
    sender.expect_heading(HEADINGS["failed"])

    sender.button("Change the text").click()

    expect(sender.page.get_by_label("Short description")).to_have_value(text)
    expect(sender.page.get_by_label("Name")).to_have_value(text[:80])
    sender.expect_fits()
    assert canary.requests == []


def test_very_long_and_very_odd_text_breaks_no_layout(visit: Visiting, product: Product) -> None:
    emoji = "🚀" * 4000  # three times: more than 10,000 in one answer
    odd = Analysis(
        summary=emoji,
        tone="w" * 3000,
        themes=["🧑‍🚀" * 1333, "\u202e" + "ש" * 300, "Z̷̢̛̺͚͉̹̗̄̓͌̕a̸" * 60, "a\n" * 50],
        suggestions=[emoji, emoji, "1" * 4000],
    )
    product.model = answer(200, response(odd.model_dump_json(), model="m" * 500))
    sender = visit(viewport=PHONE)
    sender.submit(name="🧑‍🚀" * 16, age="120", description="🧑‍🚀" * 400)

    sender.expect_heading("Your analysis")

    sender.expect_shown("🚀", 3 * 4000 + 1333)
    sender.settle()
    sender.expect_fits()
