"""What the browser tests share: a visitor in a state, and waiting for what a tab does."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

from playwright.sync_api import ViewportSize, expect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from common.states import Status
from tests.chromium import DESKTOP, PATIENCE, PHONE, Visit
from tests.product import Product
from tests.walk import HEADINGS

OWNER_HASH = "5ec2e7" * 10 + "beef"
HOUR = timedelta(hours=1)
Visiting = Callable[..., Visit]
SCREENS: tuple[tuple[ViewportSize, Literal["light", "dark"]], ...] = (
    (DESKTOP, "light"),
    (PHONE, "dark"),
)


def send(visit: Visiting, product: Product, state: str, **options: Any) -> Visit:
    """Send a form, and bring the analysis into a state for good: no delivery reaches it."""
    product.gate.clear()
    sender = visit(**options)
    status = product.put(sender.submit(), state).status
    drawn = Status.FAILED if state == "timed out" else status
    expect(sender.page.locator(f"[data-state={drawn}]")).to_be_attached()
    sender.expect_heading(HEADINGS[state])
    return sender


def frames_while(visit: Visit, milliseconds: int) -> int:
    """How much is sent and received meanwhile."""
    before = len(visit.sent) + len(visit.received)
    visit.page.wait_for_timeout(milliseconds)
    return len(visit.sent) + len(visit.received) - before


def wait_for_poll(visit: Visit) -> None:
    """Wait until the page has asked, been answered, and drawn what came."""
    before = len(visit.received)
    wait_in(visit, lambda: len(visit.received) > before)
    wait_for_quiet(visit)


def wait_in(visit: Visit, is_so: Callable[[], object]) -> None:
    """Wait until a condition holds, while the browser's events go on coming in."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not is_so():
        assert time.monotonic() < deadline, "this did not come true in time"
        visit.page.wait_for_timeout(50)


def wait_for_quiet(visit: Visit) -> None:
    """Wait until a second passes in which the server draws nothing; polls go on."""
    before, now = -1, _drawn(visit)
    while now > before:
        visit.page.wait_for_timeout(1000)
        before, now = now, _drawn(visit)


def _drawn(visit: Visit) -> int:
    """How many elements the server has drawn."""
    messages = map(ForwardMsg.FromString, visit.received)
    return sum(message.delta.WhichOneof("type") == "new_element" for message in messages)


# In a tab: how much is to be seen of it, if it is there.
SIGN_OF_LIFE = """(({ content, opacity }) => content === "none" ? undefined : Number(opacity))(
    getComputedStyle(document.querySelector(".stApp"), "::before"))"""

# In a tab: note what is removed, shown or pale, and what is read aloud.
WATCH = """() => {
    window.removed = []; window.shown = []; window.pale = []; window.spoken = [];
    const isLive = (node) => (node.nodeType === 1 ? node : node.parentElement)
        ?.closest("[aria-live], [role=status], [role=alert]");
    const watch = (root) => {
        new MutationObserver((changes) => {
            for (const change of changes) {
                if (change.type === "attributes") {
                    const { opacity } = getComputedStyle(change.target);
                    if (change.target.closest(".stMain") && opacity !== "1")
                        window.pale.push(change.target.innerText);
                    continue;
                }
                if (isLive(change.target)) window.spoken.push(change.target.textContent);
                for (const node of change.removedNodes)
                    if (node.nodeType === 1) window.removed.push(node.outerHTML);
                window.shown.push(change.target.textContent);
            }
        }).observe(root, {
            childList: true, subtree: true, characterData: true, attributeFilter: ["data-stale"],
        });
        for (const node of root.querySelectorAll("*")) if (node.shadowRoot) watch(node.shadowRoot);
    };
    watch(document.body);
}"""
