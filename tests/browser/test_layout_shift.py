"""Nothing moves when it needn't: Chromium's own measure of what did, from step to step.

What moves just after a click counts, too: on a slow line the answer comes later than that.
"""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize

from tests.browser.visits import Visiting, wait_for_quiet
from tests.chromium import DESKTOP, PHONE, Visit, open_context
from tests.fakes import ANALYSIS
from tests.product import Product
from tests.toy.task import TASK
from tests.walk import HEADINGS

pytestmark = pytest.mark.browser

MOST = 0.05  # half of what counts as good; Source: https://web.dev/articles/cls

# In each page from its start on: note each shift, by how much, and what moved from where to where.
WATCH_SHIFTS = """
    window.shifts = [];
    const note = (shift) => shifts.push({
        by: shift.value,
        moved: shift.sources.map(({ node, previousRect, currentRect }) => {
            const element = node?.nodeType === 1 ? node : node?.parentElement;
            const place = ({ x, y, width, height }) => [x, y, width, height].map(Math.round).join();
            const words = element?.innerText?.slice(0, 40) ?? "";
            const name = `${element?.tagName}.${element?.className}`.slice(0, 60);
            return `${name} "${words}" ${place(previousRect)} → ${place(currentRect)}`;
        }),
    });
    new PerformanceObserver((list) => list.getEntries().forEach(note))
        .observe({ type: "layout-shift", buffered: true });
"""


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_moves_from_the_form_to_the_result(
    visit: Visiting,
    product: Product,
    browser: Browser,
    size: ViewportSize,
    record_property: Callable[[str, object], None],
) -> None:
    product.gate.clear()
    context = open_context(browser, viewport=size, reduced_motion="no-preference")
    context.add_init_script(WATCH_SHIFTS)
    tab = visit(context=context)
    shifts: dict[str, list[dict[str, Any]]] = {}

    tab.expect_heading(TASK.headline)
    shifts["form"] = shifts_of(tab)
    tab.fill()
    shifts["writing"] = shifts_of(tab)
    tab.submit()
    tab.expect_heading(HEADINGS["waiting"])
    shifts["waiting"] = shifts_of(tab)
    product.put(tab.request_id, "processing")
    tab.expect_text("Being written now")
    shifts["writing it"] = shifts_of(tab)
    product.put(tab.request_id, "done")
    tab.expect_text(ANALYSIS.summary)
    shifts["result"] = shifts_of(tab)
    tab.page.reload()
    tab.expect_text(ANALYSIS.summary)
    shifts["result again"] = shifts_of(tab)

    record_property("said", f"Layout shift: {sums(shifts)}")
    too_much = [step for step, found in shifts.items() if total(found) > MOST]
    assert not too_much, "\n".join(f"{step}: {each}" for step in too_much for each in shifts[step])


def shifts_of(tab: Visit) -> list[dict[str, Any]]:
    """All that has moved since the last time, once the page rests."""
    wait_for_quiet(tab)
    found: list[dict[str, Any]] = tab.page.evaluate("window.shifts.splice(0)")
    return found


def total(shifts: list[dict[str, Any]]) -> float:
    return round(float(sum(shift["by"] for shift in shifts)), 3)


def sums(shifts: dict[str, list[dict[str, Any]]]) -> str:
    return ", ".join(f"{step} {total(found)}" for step, found in shifts.items())
