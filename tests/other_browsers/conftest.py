"""A tab of each other browser that is here."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import leave_out
from tests.other_browsers import firefox, webkit
from tests.other_browsers.firefox import open_firefox
from tests.other_browsers.tab import FOREIGN, Tab
from tests.other_browsers.webkit import open_webkit

BROWSERS = {"firefox": (firefox, open_firefox), "webkit": (webkit, open_webkit)}


@pytest.fixture(params=BROWSERS)
def tab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tab]:
    """A tab of a new browser. In the end, it has asked nobody else, and met no error."""
    module, start = BROWSERS[request.param]
    program = next(filter(None, map(shutil.which, module.PROGRAMS)), None)
    is_there = program and shutil.which(getattr(module, "SCREEN", program))
    if program is None or not is_there:
        leave_out(f"the journey in {request.param}", because="it is missing", remedy=module.INSTALL)
    with start(program, tmp_path / "home") as tab:
        yield tab
        assert tab.run(FOREIGN) == []
        assert tab.run("() => window.trouble") == []
