"""The product, and a tab of each other browser that is here."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import leave_out
from tests.other_browsers import firefox, webkit
from tests.other_browsers.firefox import open_firefox
from tests.other_browsers.tab import FOREIGN, Tab
from tests.other_browsers.webkit import open_webkit

BROWSERS = {"firefox": (firefox, open_firefox), "webkit": (webkit, open_webkit)}
OpenTab = Callable[[tuple[int, int], bool], Tab]


@pytest.fixture(params=BROWSERS)
def open_tab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenTab]:
    """Open a tab of that width and height, dark or light.

    In the end, none may have asked anybody else for anything, or have met an error.
    """
    module, start = BROWSERS[request.param]
    program = next(filter(None, map(shutil.which, module.PROGRAMS)), None)
    is_there = program and shutil.which(getattr(module, "SCREEN", program))
    if program is None or not is_there:
        leave_out(f"the journey in {request.param}", because="it is missing", remedy=module.INSTALL)
    tabs: list[Tab] = []
    with ExitStack() as parts:

        def open_one(size: tuple[int, int], is_dark: bool) -> Tab:
            home = tmp_path / f"home {len(tabs)}"
            tabs.append(parts.enter_context(start(program, home, size, is_dark)))
            return tabs[-1]

        yield open_one
        assert [tab.run(FOREIGN) for tab in tabs] == [[]] * len(tabs)
        assert [tab.run("() => window.trouble") for tab in tabs] == [[]] * len(tabs)
