"""Traffic over two services while each is replaced by the next version."""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.drill.place import released_code
from benchmarks.scale.check import Run, check
from benchmarks.scale.drill import Story, submit_all, upset, wait_until_settled
from benchmarks.scale.gather import gather
from benchmarks.scale.site import Size, another_version, open_site
from benchmarks.scale.tabs import Seen
from tests.chaos.history import Raw
from tests.chaos.report import Row
from tests.processes import ROOT

CLAIM = (
    "Two services behind the proxy, with a history, are replaced under traffic, and one is killed: "
    "from the released version to this, and from this to one with a field more in its record."
)
NUMBER = 600
PAUSE_SECONDS = 0.6  # of each of six who submit: a minute of traffic
SETTLED_WITHIN = 300.0  # seconds after the last is taken
OF_PEOPLE = ("browsers", "tabs", "press")  # rows about those who are not here
OF_VERSIONS = "written by both versions"


def run(directory: Path) -> list[Row]:
    directory.mkdir(parents=True, exist_ok=True)
    released = released_code(directory / "released-code")
    newer = another_version(directory / "newer-code")
    return [
        *roll(directory / "released", (released, ROOT), "released to this"),
        *roll(directory / "newer", (ROOT, newer), "this to newer"),
    ]


def roll(directory: Path, versions: tuple[Path, Path], name: str) -> list[Row]:
    """Replace the services of one version by those of the other."""
    with (
        open_site(directory, Size(), has_pages=False, versions=versions) as site,
        ThreadPoolExecutor(1) as pool,
    ):
        story, is_over = Story(), threading.Event()
        upsets = pool.submit(upset, site, NUMBER, story, is_over)
        try:
            submit_all(site, NUMBER, story, PAUSE_SECONDS)
            wait_until_settled(site, list(story.accepted.values()), SETTLED_WITHIN)
        finally:
            is_over.set()
        upsets.result()
        return judge(gather(site, NUMBER, Seen(), story), name, is_marked=versions[0] == ROOT)


def judge(seen: Run, name: str, *, is_marked: bool) -> list[Row]:
    """The rows of `make scale` that fit, and the fields that one version took from the other.

    Only a marked version says of each record who wrote it.
    """
    skipped = (*OF_PEOPLE, *(() if is_marked else (OF_VERSIONS,)))
    rows = [row for row in check(seen) if not any(word in row.what for word in skipped)]
    lost = {
        field for request_id in seen.ids for field in dropped(seen.evidence.history[request_id])
    }
    number = sum(bool(dropped(seen.evidence.history[request_id])) for request_id in seen.ids)
    note = f"dropped: {', '.join(sorted(lost))}" if lost else ""
    rows.append(Row("records whose fields all stayed", len(seen.ids) - number, number, note))
    return [row._replace(what=f"{name}: {row.what}") for row in rows]


def dropped(values: Iterable[Raw]) -> set[str]:
    """The fields that were in one value of a record, and no more in a later one."""
    known: set[str] = set()
    lost: set[str] = set()
    for value in values:
        lost |= known - value.keys()
        known |= value.keys()
    return lost
