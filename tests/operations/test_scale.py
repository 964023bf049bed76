"""What `make scale` makes of what it has seen: each fault has a row of its own."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.scale.check import Run, check
from benchmarks.scale.site import another_version, proxy_configuration
from docs import scale_figures
from tests.chaos.evidence import Evidence
from tests.chaos.history import Raw
from tests.processes import ROOT, run_python

FIRST, SECOND = "1" * 32, "2" * 32
KILLED = 77
SOON_KILLED_AT = 1_800_000_000.0
CUT_OFF = (
    f'{{"event": "claimed", "pid": {KILLED}, "request_id": "{FIRST}", "attempt": 1, '
    '"call_id": "token of 1"}'
)


def values(request_id: str) -> list[Raw]:
    """A record's life, written by one version and then by the other."""
    token, name = f"token of {request_id[0]}", "ofNewerVersion"
    common = {"requestId": request_id, "claimedAt": None}
    return [
        {**common, "status": "pending", "claimToken": None},
        {**common, "status": "processing", "claimToken": token, name: "yes"},
        {**common, "status": "completed", "claimToken": token, name: "yes"},
    ]


def run() -> Run:
    """One analysis of a program and one of a person, and nothing went wrong."""
    history = {request_id: values(request_id) for request_id in (FIRST, SECOND)}
    records: dict[str, Raw | None] = {one: history[one][-1] for one in history}
    killed = {KILLED: SOON_KILLED_AT}
    return Run(
        planned=1,
        accepted=[FIRST],
        tried=1,
        sent=[SECOND],
        shown=[SECOND],
        restarted=[1],
        evidence=Evidence(records, history, [], log="", qstash_log="", killed=killed),
        calls=["token of 1", "token of 2"],
        archived=dict.fromkeys((FIRST, SECOND), "completed"),
        new_field="ofNewerVersion",
        answers=Counter({"202": 1}),
    )


def faults(of: Run) -> list[str]:
    return [row.what for row in check(of) if row.wrong]


def test_nothing_is_wrong_where_all_is_well() -> None:
    assert faults(run()) == []


def lose(seen: Run) -> None:
    seen.evidence.records[FIRST] = None


def leave_unfinished(seen: Run) -> None:
    seen.evidence.records[FIRST] = values(FIRST)[1]


def refuse(seen: Run) -> None:
    seen.planned = 2


def pay_twice(seen: Run) -> None:
    again = {**values(FIRST)[1], "claimToken": "another"}
    seen.evidence.history[FIRST].insert(2, again)
    seen.calls.append("another")


def ask_twice_with_one_claim(seen: Run) -> None:
    seen.calls.append("token of 1")


def ask_without_a_claim(seen: Run) -> None:
    seen.calls.append("nobody's")


def write_after_the_end(seen: Run) -> None:
    seen.evidence.history[FIRST].append(values(FIRST)[2])


def forget(seen: Run) -> None:
    del seen.archived[SECOND]


def keep_otherwise(seen: Run) -> None:
    seen.archived[SECOND] = "failed"


def send_in_vain(seen: Run) -> None:
    seen.tried = 2


def show_nothing(seen: Run) -> None:
    seen.shown.clear()


def restart_under_nobody(seen: Run) -> None:
    seen.restarted.append(0)


def kill_nobody(seen: Run) -> None:
    seen.evidence.killed.clear()


def run_one_version(seen: Run) -> None:
    for each in seen.evidence.history.values():
        for raw in each:
            raw["ofNewerVersion"] = "yes"


@pytest.mark.parametrize(
    ("fault", "row"),
    [
        (refuse, "submitted through the API"),
        (lose, "completed, not lost"),
        (leave_unfinished, "completed, not lost"),
        (pay_twice, "… second calls, each after one that was cut off"),
        (ask_twice_with_one_claim, "model calls"),
        (ask_without_a_claim, "model calls"),
        (write_after_the_end, "changed after their end"),
        (forget, "in PostgreSQL, as Redis has them"),
        (keep_otherwise, "in PostgreSQL, as Redis has them"),
        (send_in_vain, "sent from browsers"),
        (show_nothing, "results shown in browsers"),
        (restart_under_nobody, "… tabs whose page's process was restarted meanwhile"),
        (kill_nobody, "processes killed"),
        (run_one_version, "written by both versions, one after the other"),
    ],
)
def test_each_fault_is_seen(fault: Callable[[Run], None], row: str) -> None:
    seen = run()

    fault(seen)

    assert row in faults(seen)


def test_a_call_again_after_a_kill_is_no_fault() -> None:
    seen = run()
    pay_twice(seen)

    seen.evidence.log = CUT_OFF

    assert faults(seen) == []


def test_the_other_version_and_the_second_page_fit_what_is_here(tmp_path: Any) -> None:
    copy = another_version(tmp_path / "copy")

    changed = (copy / "common" / "record.py").read_text()
    assert changed != (ROOT / "common" / "record.py").read_text()
    assert "50% http://page:8501;" in proxy_configuration(8502, {9000: "127.0.0.41"})


def test_the_page_about_scale_is_made_from_its_figures() -> None:
    made = run_python(["-m", "docs.scale_figures"], ROOT)

    assert (ROOT / "docs" / "scale.md").read_text() == made.stdout


@pytest.mark.parametrize("quoted", scale_figures.QUOTED)
def test_its_figures_are_those_of_the_report(quoted: str) -> None:
    report = (ROOT / "docs" / "reports" / "performance.md").read_text()

    assert quoted in " ".join(report.split()).replace("| |", "|  |")
