"""The journeys of people, in a real headless Chromium, through all real processes."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, expect, sync_playwright

from common.models import Analysis
from tests.browser import (
    CHROMIUM_ARGUMENTS,
    PHONE,
    Visit,
    find_chromium,
    open_context,
)
from tests.conftest import leave_out
from tests.fakes import ADA, ANALYSIS, ID, OTHER_ID
from tests.http_server import HttpServer, answer, hang, serve
from tests.product import Product, start_product
from tests.test_analyst import refusal, response
from tests.walk import HEADINGS, walk

pytestmark = pytest.mark.browser

OWNER_HASH = "5ec2e7" * 10 + "beef"
JOURNEY = "the browser journeys"
Visiting = Callable[..., Visit]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    try:
        context = sync_playwright().start()
    except Exception as error:  # its driver, a program of its own, did not start
        remedy = "A bare Debian needs: apt install libatomic1"
        leave_out(JOURNEY, because=f"Playwright does not start ({error})", remedy=remedy)
    yield context
    context.stop()


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    path = find_chromium(playwright)
    if path is None:
        remedy = "apt install chromium, or .venv/bin/playwright install chromium"
        leave_out(JOURNEY, because="there is no Chromium", remedy=remedy)
    browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def whole_product(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with start_product(tmp_path_factory.mktemp("product")) as product:
        yield product


@pytest.fixture
def product(whole_product: Product) -> Product:
    whole_product.make_whole()
    return whole_product


@pytest.fixture
def visit(browser: Browser, product: Product) -> Iterator[Visiting]:
    """Open the page, as a new visitor or in a known one's browser.

    In the end, no tab may have asked anybody else for anything, or have met an error.
    """
    visits: list[Visit] = []

    def open_tab(
        request_id: str = "", *, context: BrowserContext | None = None, **options: Any
    ) -> Visit:
        url = f"{product.page.url}/?request={request_id}" if request_id else product.page.url
        visits.append(Visit(context or open_context(browser, **options), url))
        return visits[-1]

    yield open_tab
    for visit in visits:
        assert visit.foreign_requests == []
        assert visit.trouble == []
        visit.context.close()


def send(visit: Visiting, product: Product, state: str, **options: Any) -> Visit:
    """Send a form, and bring the analysis into a state for good: no delivery reaches it."""
    product.gate.clear()
    sender = visit(**options)
    product.put(sender.submit(), state)
    sender.expect_heading(HEADINGS[state])
    return sender


def frames_while(visit: Visit, milliseconds: int) -> int:
    before = len(visit.received)
    visit.page.wait_for_timeout(milliseconds)
    return len(visit.received) - before


# ── From the form to the result ─────────────────────────────────────────────────────────────


def test_fill_submit_wait_read_and_rest(visit: Visiting, product: Product) -> None:
    sender = visit()
    sender.submit()
    sender.expect_heading("Your request is in the queue")
    sender.expect_heading("Your analysis")

    sender.expect_text(ANALYSIS.summary)
    sender.expect_text("Your analysis is ready.")
    expect(sender.page).to_have_title("✓ Ready · Ask later")
    assert "sketch" not in sender.page.inner_text("body")
    sender.page.wait_for_timeout(1500)
    assert frames_while(sender, 5000) == 0  # two polls, were there any

    sender.page.reload()
    sender.expect_text(ANALYSIS.summary)
    expect(sender.text("Your analysis is ready.")).to_have_count(0)


def test_the_keyboard_alone_is_enough(visit: Visiting, product: Product) -> None:
    product.gate.clear()
    sender = visit()
    sender.page.get_by_label("Name").focus()
    frame = sender.page.get_by_test_id("stTextInputRootElement")
    expect(frame).to_have_css("outline", "rgb(99, 102, 241) solid 3px")
    press = sender.page.keyboard.press
    for text in ("Ada", "36", ADA.description):
        sender.page.keyboard.type(text)
        press("Tab")
    expect(sender.button("Send request")).to_be_focused()
    press("Enter")
    sender.expect_heading("Your request is in the queue")

    for _ in range(20):
        press("Tab")
        if sender.page.locator("button:focus", has_text="Cancel").count():
            break
    press("Enter")
    expect(sender.button("Yes, cancel it")).to_be_visible()
    sender.button("Yes, cancel it").focus()
    press("Enter")

    sender.expect_heading("Cancelled")


def test_wrong_fields_are_named_and_the_text_stays(visit: Visiting, product: Product) -> None:
    sender = visit()
    sender.fill(name=" ", age="36.5", description="Short.")
    sender.button("Send request").click()

    for message in ("Enter your name", "Enter your age as a whole number", "Write 10 to 2,000"):
        sender.expect_text(message)
    sender.expect_text("Nothing was sent yet")
    expect(sender.page.get_by_label("Short description")).to_have_value("Short.")
    assert sender.request_id == ""


def test_a_double_click_makes_one_analysis(visit: Visiting, product: Product) -> None:
    before = product.page.output.count('"event": "submitted"')
    sender = visit()
    sender.fill()

    sender.button("Send request").dblclick()

    sender.expect_heading("Your analysis")
    assert product.page.output.count('"event": "submitted"') == before + 1


def test_two_tabs_of_one_browser_show_the_same_and_may_do_the_same(
    visit: Visiting, product: Product
) -> None:
    first = send(visit, product, "waiting")
    second = visit(first.request_id, context=first.context)
    second.expect_heading(HEADINGS["waiting"])
    expect(second.button("Cancel")).to_be_visible()

    product.put(first.request_id, "done")

    for tab in (first, second):
        tab.expect_text(ANALYSIS.summary)
        expect(tab.button("Delete now")).to_be_visible()


def test_a_refresh_changes_nothing(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting")
    owners = {"waiting": "Cancel", "processing": "Cancel", "retrying": "Cancel"}
    for state in ("waiting", "processing", "retrying", "done", "failed", "cancelled"):
        product.put(sender.request_id, state)

        sender.page.reload()

        sender.expect_heading(HEADINGS[state])
        expect(sender.button(owners.get(state, "Delete now"))).to_be_visible()


def test_the_page_polls_while_it_waits_and_nothing_flickers(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "processing")
    sender.page.wait_for_timeout(2500)
    sender.page.evaluate(
        """() => {
            window.removed = [];
            const main = document.querySelector("[data-testid=stMain]");
            new MutationObserver((changes) => {
                for (const change of changes)
                    for (const node of change.removedNodes)
                        if (node.nodeType === 1) window.removed.push(node.outerHTML);
            }).observe(main, { childList: true, subtree: true });
        }"""
    )

    assert frames_while(sender, 4500) > 0

    assert sender.page.evaluate("window.removed") == []


def test_times_are_in_the_visitors_own_time_zone(visit: Visiting, product: Product) -> None:
    record = product.put(ID, "cancelled")
    hours = {zone: visit(ID, timezone_id=zone) for zone in ("Asia/Tokyo", "America/Los_Angeles")}

    for zone, tab in hours.items():
        tab.expect_heading("Cancelled")
        local = tab.page.evaluate(
            "([time, timeZone]) => new Date(time).toLocaleTimeString('en-GB', { timeZone })",
            [record.created_at.isoformat(), zone],
        )
        tab.expect_text(local)


# ── What goes down comes up again ───────────────────────────────────────────────────────────


def test_the_service_goes_down_and_comes_up_while_somebody_waits(
    visit: Visiting, product: Product
) -> None:
    product.service.stop()
    sender = visit()
    sender.submit()
    sender.expect_text("any moment now")

    product.service.start()

    sender.expect_text(ANALYSIS.summary)


def test_redis_goes_down_and_comes_up_while_somebody_waits(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "processing")
    product.redis.refuse_connections()
    sender.expect_text("We can't reach our store just now")
    sender.expect_heading("Writing your analysis")

    product.put(sender.request_id, "done")
    product.redis.mend()

    sender.expect_text(ANALYSIS.summary)
    expect(sender.text("We can't reach our store just now")).to_have_count(0)


def test_redis_is_away_when_the_form_is_sent_and_the_text_stays(
    visit: Visiting, product: Product
) -> None:
    sender = visit()
    product.redis.refuse_connections()
    sender.fill()
    sender.button("Send request").click()
    sender.expect_text("Your text is still here")
    expect(sender.page.get_by_label("Short description")).to_have_value(ADA.description)

    product.redis.mend()
    sender.button("Send request").click()

    sender.expect_text(ANALYSIS.summary)


def test_the_pages_own_server_restarts_while_somebody_waits(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "processing")
    product.page.stop()
    product.put(sender.request_id, "failed")
    product.page.start()

    sender.expect_heading("This did not work")
    expect(sender.button("Try again")).to_be_visible()


# ── What the sender can do ──────────────────────────────────────────────────────────────────


def test_cancelling_asks_first_and_says_that_the_model_was_not_asked(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "waiting")
    sender.button("Cancel").click()
    sender.expect_text("The model has not been asked yet")
    sender.page.keyboard.press("Escape")
    sender.expect_heading("Your request is in the queue")

    sender.button("Cancel").click()
    sender.button("Yes, cancel it").click()

    sender.expect_heading("Cancelled")
    assert product.store.read(sender.request_id).input is None


def test_cancelling_while_the_model_is_at_it_throws_its_answer_away(
    visit: Visiting, product: Product
) -> None:
    product.model = hang
    sender = visit()
    sender.submit()
    sender.expect_heading("Writing your analysis")

    sender.button("Cancel").click()
    sender.expect_text("The model has already been asked")
    sender.button("Yes, cancel it").click()

    sender.expect_heading("Cancelled")
    sender.expect_text("after the model had been asked")


def test_a_failed_analysis_is_tried_again(visit: Visiting, product: Product) -> None:
    product.model = answer(200, refusal())
    sender = visit()
    sender.submit()
    sender.expect_heading("This did not work")
    sender.expect_text("The AI model declined to analyse this text.")

    product.model = answer(200, response(ANALYSIS.model_dump_json()))
    sender.button("Try again").click()

    sender.expect_text(ANALYSIS.summary)


def test_what_is_deleted_is_gone_for_everybody(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "done")
    request_id = sender.request_id
    sender.button("Delete now").click()
    sender.button("Yes, delete it").click()
    sender.expect_text("Deleted.")
    sender.expect_text("Nothing here yet")

    reader = visit(request_id)

    reader.expect_text("not found, or is no longer kept")
    assert product.client.keys(f"*{request_id}*") == []


def test_the_link_and_the_analysis_can_be_taken_along(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "done", permissions=["clipboard-read", "clipboard-write"])

    def copied(button: str) -> str:
        expect(sender.button("Copied")).to_have_count(0)
        sender.button(button).click()
        expect(sender.button("Copied")).to_be_visible()
        text: str = sender.page.evaluate("navigator.clipboard.readText()")
        return text

    def downloaded(button: str) -> tuple[str, str]:
        with sender.page.expect_download() as download:
            sender.button(button).click()
        return download.value.suggested_filename, download.value.path().read_text()

    assert copied("Copy link") == sender.page.url
    assert f"## Summary\n\n{ANALYSIS.summary}" in copied("Copy text")
    assert downloaded("Download Markdown") == ("analysis.md", copied("Copy text"))
    name, content = downloaded("Download JSON")
    assert (name, Analysis.model_validate_json(content)) == ("analysis.json", ANALYSIS)


# ── Your requests in this browser ───────────────────────────────────────────────────────────


def test_the_list_leads_back_and_follows_the_state(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting")
    request_id = sender.request_id
    sender.page.goto(product.page.url)
    item = sender.page.get_by_role("listitem").filter(has=sender.page.get_by_role("link"))
    expect(item).to_contain_text("Waiting")

    product.put(request_id, "done")
    sender.page.reload()
    expect(item).to_contain_text("Ready")
    item.get_by_role("link").click()

    sender.expect_text(ANALYSIS.summary)
    assert sender.request_id == request_id


def test_forgetting_all_takes_the_rights_away(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting")
    request_id = sender.request_id
    sender.page.goto(product.page.url)
    sender.button("Forget all").click()
    sender.button("Yes, forget all").click()
    sender.expect_text("Nothing here yet")

    sender.page.goto(f"{product.page.url}/?request={request_id}")

    sender.expect_heading("Your request is in the queue")
    expect(sender.button("New request")).to_be_visible()
    expect(sender.button("Cancel")).to_have_count(0)


def test_a_link_that_has_expired_says_so_to_its_sender_alone(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "done")
    product.client.delete(f"analysis:{{{sender.request_id}}}")
    sender.page.reload()
    sender.expect_heading("No longer kept")

    sender.page.goto(product.page.url)
    item = sender.page.get_by_role("listitem").filter(has=sender.page.get_by_role("link"))
    expect(item).to_contain_text("No longer kept")


def test_an_unknown_link_says_that_it_leads_nowhere(visit: Visiting, product: Product) -> None:
    reader = visit(OTHER_ID)
    for request_id in (OTHER_ID, "no-such", "x" * 5000, "%00", "<b>"):
        reader.page.goto(f"{product.page.url}/?request={request_id}")

        reader.expect_text("not found, or is no longer kept")

    reader.button("New request").click()
    expect(reader.page.get_by_label("Short description")).to_be_visible()
    assert reader.request_id == ""


# ── Strangers ───────────────────────────────────────────────────────────────────────────────


def test_a_stranger_sees_state_and_result_but_neither_text_nor_buttons(
    visit: Visiting, product: Product
) -> None:
    product.put(ID, "waiting", owner_hash=OWNER_HASH)
    stranger = visit(ID)
    for state in ("waiting", "processing", "done", "failed", "cancelled"):
        product.put(ID, state, owner_hash=OWNER_HASH)
        stranger.page.reload()
        stranger.expect_heading(HEADINGS[state])
        stranger.expect_text(f"Reference: {ID}")

        for name in ("Cancel", "Try again", "Change the text", "Delete now"):
            expect(stranger.button(name)).to_have_count(0)
        sent = b"".join(stranger.received)
        assert HEADINGS[state].encode() in sent  # so anything else would be found
        for secret in (ADA.description, OWNER_HASH):
            assert secret.encode() not in sent
            assert secret not in stranger.page.content()


# ── Hostile text ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
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
    for options in ({}, {"viewport": PHONE, "color_scheme": "dark"}):
        sender = visit(**options)
        sender.submit(name=text[:80], description=text)
        sender.expect_heading("Your analysis")

        shown = " ".join(sender.page.inner_text("body").split())
        assert shown.count(" ".join(text.split())) == 5
        sender.page.wait_for_timeout(500)
        assert sender.page.locator(f'[src*="{canary.url}"], [href*="{canary.url}"]').count() == 0
        sender.expect_fits()
    assert canary.requests == []


def test_hostile_text_comes_back_to_its_sender_as_it_was(
    visit: Visiting, product: Product, canary: HttpServer
) -> None:
    text = hostile(canary)
    product.model = answer(200, refusal())
    sender = visit()
    sender.submit(name=text[:80], description=text)
    sender.expect_heading("This did not work")

    sender.button("Change the text").click()

    expect(sender.page.get_by_label("Short description")).to_have_value(text)
    assert canary.requests == []


def test_very_long_and_very_odd_text_breaks_no_layout(visit: Visiting, product: Product) -> None:
    emoji = "🧑‍🚀" * 1333  # 3,999 characters
    odd = Analysis(
        summary=emoji,
        tone="w" * 3000,
        themes=["\u202e" + "ש" * 300, "Z̷̢̛̺͚͉̹̗̄̓͌̕a̸" * 60, "a\n" * 50],
        suggestions=[emoji, emoji, "1" * 4000],
    )
    product.model = answer(200, response(odd.model_dump_json(), model="m" * 500))
    sender = visit(viewport=PHONE)
    sender.submit(name="🧑‍🚀" * 16, age="120", description="🧑‍🚀" * 400)

    sender.expect_heading("Your analysis")

    assert sender.page.inner_text("body").count("🧑‍🚀") == 3 * 1333
    sender.expect_fits()


# ── Every state, for everybody ──────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def axe() -> Any:
    """The checker; there is no list of exceptions, for it finds nothing in Streamlit either."""
    try:
        return import_module("axe_playwright_python.sync_playwright").Axe()
    except ImportError:
        remedy = ".venv/bin/pip install axe-playwright-python"
        leave_out("the accessibility check", because="there is no axe-core", remedy=remedy)


def violations(axe: Any, tab: Visit) -> list[tuple[str, str, str]]:
    """What is wrong: rule, impact, and where."""
    found = axe.run(tab.page).response["violations"]
    return [
        (each["id"], each["impact"], str(node["target"]))
        for each in found
        for node in each["nodes"]
    ]


@pytest.mark.parametrize(
    "options",
    [{"color_scheme": "light"}, {"color_scheme": "dark", "viewport": PHONE}],
    ids=["light desktop", "dark phone"],
)
def test_every_state_is_accessible_and_fits(
    visit: Visiting, product: Product, axe: Any, options: dict[str, Any]
) -> None:
    tab = visit(**options)
    for state in walk(tab, product):
        assert violations(axe, tab) == [], state
        tab.expect_fits()

    background = tab.page.locator(".stApp").evaluate("e => getComputedStyle(e).backgroundColor")
    assert (background == "rgb(14, 17, 23)") == (options["color_scheme"] == "dark")


def test_the_accessibility_check_sees_into_streamlits_page_and_our_components(
    visit: Visiting, product: Product, axe: Any
) -> None:
    product.put(ID, "processing")
    reader = visit(ID)
    reader.expect_text("Attempt 1 of 3")
    for place in (".stMain h1", ".steps strong"):
        reader.page.locator(place).first.evaluate(
            'e => { e.innerHTML = \'<img src="data:,"><span style="color:#ddd">pale</span>\' }'
        )

    found = [rule for rule, _, _ in violations(axe, reader)]

    assert found.count("image-alt") == found.count("color-contrast") == 2


def test_whoever_wants_no_motion_sees_none(visit: Visiting, product: Product) -> None:
    product.put(ID, "processing")
    for wish, animation in (("no-preference", "turn"), ("reduce", "none")):
        reader = visit(ID, reduced_motion=wish)

        expect(reader.page.locator(".ring svg")).to_have_css("animation-name", animation)
