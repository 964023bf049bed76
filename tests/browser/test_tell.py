"""Being told that it is ready: by a notification, or by a sound, and by the tab's icon."""

import json

import pytest
from playwright.sync_api import Browser, expect

from page.favicon import FAILED, READY, WAITING
from tests.browser.visits import Visiting, wait_in
from tests.chromium import Visit, open_context
from tests.product import Product
from tests.toy.task import TASK

pytestmark = pytest.mark.browser

OFF, ON = "Tell me when it’s ready", "We’ll tell you"
# What lies beyond the page: the system's notifications, the loudspeaker, whether the tab is seen.
# A tab keeps the permission and whether it is seen when it is loaded again.
FAKES = """(() => {
    const kept = sessionStorage;
    Object.assign(window, { asked: 0, shown: [], beeps: 0, shakes: 0, focused: 0 });
    window.focus = () => { window.focused += 1; };
    window.Notification = class {
        static get permission() { return kept.permission ?? "default"; }
        static async requestPermission() {
            window.asked += 1;
            return (kept.permission = ANSWER.permission);
        }
        constructor(title, { tag }) {
            if (ANSWER.throws) throw new TypeError("Illegal constructor");
            window.shown.push([title, tag]);
            window.latest = this;
        }
        close() {}
    };
    window.AudioContext = class {
        currentTime = 0;
        async resume() {}
        createOscillator() {
            const start = () => { window.beeps += 1; };
            return { frequency: {}, connect: (next) => next, start, stop() {} };
        }
        createGain() {
            const gain = { setValueAtTime() {}, exponentialRampToValueAtTime() {} };
            return { gain, connect: (next) => next };
        }
    };
    navigator.vibrate = () => { window.shakes += 1; };
    Object.defineProperty(document, "hidden", { get: () => kept.isHidden === "yes" });
})()"""


def begin(visit: Visiting, product: Product, browser: Browser, **answer: object) -> Visit:
    """Send a form, in a browser of its own; no delivery comes."""
    context = open_context(browser)
    context.add_init_script(FAKES.replace("ANSWER", f"({json.dumps(answer)})"))
    product.gate.clear()
    tab = visit(context=context)
    product.put(tab.submit(), "any moment now")
    return tab


def look_away(tab: Visit) -> None:
    tab.page.evaluate("sessionStorage.isHidden = 'yes'")


def icon(tab: Visit) -> object:
    return tab.page.evaluate("document.querySelector('link[rel*=icon]').href")


def test_a_notification_comes_once_and_only_to_who_asked_and_looks_elsewhere(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    tab = begin(visit, product, browser, permission="granted")
    tab.expect_text("To be told, keep this tab open.")
    wait_in(tab, lambda: icon(tab) == WAITING)
    assert tab.page.evaluate("asked") == 0

    for label in (OFF, ON, OFF):
        tab.button(label).click()
    expect(tab.button(ON)).to_be_visible()
    expect(tab.page.get_by_role("status").filter(has_text=ON)).to_have_count(1)
    assert tab.page.evaluate("asked") == 1
    tab.page.reload()
    expect(tab.button(ON)).to_be_visible()
    look_away(tab)
    product.put(tab.request_id, "done")

    tab.expect_value("shown", [[f"Your {TASK.noun} is ready.", tab.request_id]])
    wait_in(tab, lambda: icon(tab) == READY)
    tab.page.evaluate("latest.onclick()")
    assert tab.page.evaluate("[focused, beeps]") == [1, 0]
    tab.page.reload()
    tab.settle()
    tab.expect_value("shown", [])


def test_who_looks_at_the_page_is_not_told(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    tab = begin(visit, product, browser, permission="granted")
    tab.button(OFF).click()
    product.put(tab.request_id, "done")

    tab.expect_heading(f"Your {TASK.noun}")
    tab.rest()

    assert tab.page.evaluate("[shown, beeps]") == [[], 0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"permission": "denied"}, "This browser allows no notifications: we’ll play a sound."),
        ({"permission": "granted", "throws": True}, "Keep this tab open."),
    ],
    ids=["denied", "only for service workers"],
)
def test_without_notifications_there_is_a_sound(
    visit: Visiting, product: Product, browser: Browser, answer: dict[str, object], said: str
) -> None:
    tab = begin(visit, product, browser, **answer)
    tab.button(OFF).click()
    tab.expect_text(said)
    look_away(tab)
    product.put(tab.request_id, "failed")

    tab.expect_value("[shown, beeps, shakes]", [[], 2, 1])
    wait_in(tab, lambda: icon(tab) == FAILED)
