"""What the browser is given to remember."""

from page.browser import entry
from page.snapshot import Snapshot
from tests.fakes import ID, NOW
from tests.states import TTL, WAITING


def test_the_browser_remembers_time_state_and_token_and_no_text() -> None:
    kept = entry(Snapshot(ID, WAITING), TTL, "token")

    assert kept
    assert kept.model_dump() == {
        "request_id": ID,
        "state": "Waiting",
        "is_over": False,
        "created_at": NOW,
        "kept_until": WAITING.deadline_at + TTL,
        "owner_token": "token",
    }
    assert entry(Snapshot(ID, failures=1), TTL) is None
    gone = entry(Snapshot(ID, is_gone=True), TTL)
    assert gone
    assert (gone.state, gone.is_over) == ("No longer kept", True)
