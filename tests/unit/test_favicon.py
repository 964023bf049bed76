"""The icon in the browser's tab."""

from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from page import favicon
from page.favicon import FAILED, GONE, READY, WAITING
from page.snapshot import Snapshot
from tests import states
from tests.fakes import ID


@pytest.mark.parametrize(
    ("snapshot", "icon"),
    [
        (Snapshot(ID, states.WAITING), WAITING),
        (Snapshot(ID, states.WRITING), WAITING),
        (Snapshot(ID, states.RETRYING), WAITING),
        (Snapshot(ID, states.READY), READY),
        (Snapshot(ID, states.FAILED), FAILED),
        (Snapshot(ID, states.CANCELLED), FAILED),
        (Snapshot(ID, is_gone=True), GONE),
        (Snapshot(ID, is_unreadable=True), GONE),
        (Snapshot(ID, failures=1), WAITING),
    ],
)
def test_each_state_has_an_icon_that_needs_no_font(snapshot: Snapshot, icon: str) -> None:
    found = favicon.favicon(snapshot)

    assert found == icon
    drawn = ElementTree.fromstring(unquote(found.removeprefix("data:image/svg+xml,")))
    assert "text" not in {element.tag.rpartition("}")[2] for element in drawn.iter()}
