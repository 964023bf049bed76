"""The journey of a person, in a real headless Chromium, through all real processes."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.conftest import leave_out
from tests.fakes import ADA, ANALYSIS
from tests.http_server import answer, serve
from tests.processes import Stack, start_stack
from tests.test_analyst import response

pytestmark = pytest.mark.browser

# Without these Chromium calls its maker's servers at every start.
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
CANARY = "http://127.0.0.1:9/canary"
HOSTILE = (
    f'<img src="{CANARY}/a"> ![x]({CANARY}/b) [link]({CANARY}/c) {CANARY}/d <script>1</script>'
)


def find_chromium(playwright: Playwright) -> str | None:
    """The browser: the system's own, or the one that `playwright install chromium` brought."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    bundled = playwright.chromium.executable_path
    return bundled if Path(bundled).exists() else None


JOURNEY = "the browser journey"


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


class Visit:
    """A browser tab that notes its requests, its websocket frames and its errors."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.requests: list[str] = []
        self.frames = 0
        self.errors: list[str] = []
        self.page: Page = browser.new_context().new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._count))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(url)

    def _count(self, _: object) -> None:
        self.frames += 1

    def foreign_requests(self, origin: str) -> list[str]:
        own = (origin, origin.replace("http", "ws"), "data:", "blob:")
        return [url for url in self.requests if not url.startswith(own)]

    def submit(self, description: str = ADA.description) -> None:
        self.page.get_by_label("Name").fill("Ada")
        self.page.get_by_label("Age").fill("36")
        self.page.get_by_label("Short description").fill(description)
        self.page.get_by_role("button", name="Send request").click()
        expect(
            self.page.get_by_role("heading", name="Your request is in the queue")
        ).to_be_visible()

    def expect_heading(self, name: str) -> None:
        expect(self.page.get_by_role("heading", name=name)).to_be_visible(timeout=20_000)


def test_fill_submit_wait_read_and_come_back(browser: Browser, stack: Stack) -> None:
    visit = Visit(browser, stack.page_url)
    visit.submit()
    expect(visit.page).to_have_url(re.compile(r"\?request=[0-9a-f]{32}$"))

    visit.expect_heading("Your analysis")
    expect(visit.page.get_by_text("machines").first).to_be_visible()

    summary = visit.page.get_by_text("What you return to most").inner_text()
    visit.page.wait_for_timeout(1500)
    at_rest = visit.frames
    visit.page.wait_for_timeout(6000)  # three polls, were there any
    assert visit.frames == at_rest

    visit.page.reload()
    expect(visit.page.get_by_text(summary)).to_be_visible(timeout=20_000)
    second = Visit(browser, visit.page.url)
    expect(second.page.get_by_text(summary)).to_be_visible(timeout=20_000)
    expect(second.page.get_by_role("button", name="Delete now")).to_have_count(0)

    assert visit.foreign_requests(stack.page_url) == []
    assert second.foreign_requests(stack.page_url) == []
    assert visit.errors == []


def test_the_page_polls_by_itself_while_the_analysis_waits(browser: Browser, stack: Stack) -> None:
    visit = Visit(browser, stack.page_url)
    visit.submit()
    before = visit.frames

    visit.page.wait_for_timeout(2500)

    assert visit.frames > before


def test_wrong_fields_are_named_and_nothing_is_sent(browser: Browser, stack: Stack) -> None:
    visit = Visit(browser, stack.page_url)
    visit.page.get_by_label("Age").fill("36.5")
    visit.page.get_by_role("button", name="Send request").click()

    for message in ("Enter your name", "Enter your age as a whole number", "Write 10 to 2,000"):
        expect(visit.page.get_by_text(message)).to_be_visible()
    assert "request=" not in visit.page.url


def test_a_double_click_makes_one_analysis(browser: Browser, stack: Stack) -> None:
    before = stack.output.count(" submitted ")
    visit = Visit(browser, stack.page_url)
    visit.page.get_by_label("Name").fill("Ada")
    visit.page.get_by_label("Age").fill("36")
    visit.page.get_by_label("Short description").fill(ADA.description)

    visit.page.get_by_role("button", name="Send request").dblclick()

    visit.expect_heading("Your analysis")
    assert stack.output.count(" submitted ") == before + 1


def test_what_the_model_wrote_loads_nothing_from_outside(browser: Browser, tmp_path: Path) -> None:
    hostile = ANALYSIS.model_copy(
        update={"summary": HOSTILE, "tone": HOSTILE, "themes": [HOSTILE], "suggestions": [HOSTILE]}
    )
    model = answer(200, response(hostile.model_dump_json(), model=HOSTILE))
    with serve(model) as openai:
        settings = {"OPENAI_BASE_URL": f"{openai.url}/v1", "OPENAI_API_KEY": "test"}
        with start_stack(tmp_path, QSTASH_DELAY="1s", **settings) as stack:
            visit = Visit(browser, stack.page_url)
            visit.submit(HOSTILE)

            visit.expect_heading("Your analysis")
            expect(visit.page.get_by_text("<script>1</script>").first).to_be_visible()
            visit.page.wait_for_timeout(1000)

            assert visit.foreign_requests(stack.page_url) == []
            assert visit.page.locator(f'[src*="{CANARY}"], [href*="{CANARY}"]').count() == 0


def test_a_restart_of_the_pages_server_comes_back_to_the_same_analysis(
    browser: Browser, tmp_path: Path
) -> None:
    with start_stack(tmp_path, QSTASH_DELAY="1s") as stack:
        visit = Visit(browser, stack.page_url)
        visit.submit()
        visit.expect_heading("Your analysis")
        summary = visit.page.get_by_text("What you return to most").inner_text()
        link = visit.page.url.removeprefix(stack.page_url)
        stack.stop()

    with start_stack(tmp_path) as stack:
        visit = Visit(browser, stack.page_url + link)
        expect(visit.page.get_by_text(summary)).to_be_visible(timeout=20_000)
