"""Keys are rotated as docs/operating.md has it, under load, and no delivery is lost or refused."""

import threading
from collections.abc import Iterator

import httpx
import pytest

from common.settings import DEVELOPMENT_TOKEN
from common.submission import new_request_id
from tests.chaos.site import Site, open_site
from tests.processes import wait_for
from tests.toy.task import AnalysisInput

EVERY_SECONDS = 0.1
MORE = 8
SOUND = AnalysisInput(name="Ada", age=36, description="marker-sound-1 never fails")


class Load:
    """Somebody who submits all the time."""

    def __init__(self, site: Site) -> None:
        self.ids: list[str] = []
        self._submissions = site.submissions()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def go_on(self) -> None:
        """Wait until some more are submitted."""
        enough = len(self.ids) + MORE
        wait_for(lambda: len(self.ids) >= enough)

    def _submit(self) -> None:
        while not self._is_over.wait(EVERY_SECONDS):
            request_id = new_request_id()
            self._submissions.submit(SOUND, request_id=request_id)
            self.ids.append(request_id)


def rotate(site: Site) -> dict[str, str]:
    """Press "roll" in the console."""
    answer = httpx.post(
        f"{site.settings.qstash_url}/v2/keys/rotate",
        headers={"Authorization": f"Bearer {DEVELOPMENT_TOKEN}"},
    )
    keys: dict[str, str] = answer.raise_for_status().json()
    return keys


def restart_with(site: Site, keys: dict[str, str]) -> None:
    """Give the service the two keys that the console shows, as a deployment does."""
    changes = {
        "qstash_current_signing_key": keys["current"],
        "qstash_next_signing_key": keys["next"],
    }
    site.settings = type(site.settings).model_validate(site.settings.model_dump() | changes)
    site.roll()


def refused(site: Site) -> int:
    """How many deliveries the service has answered 401, as QStash has it."""
    return site.qstash_log_path.read_text().count("/webhook: 401\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Each test leaves it with the keys that are in use."""
    with open_site(tmp_path_factory.mktemp("rotation"), workers=1) as site:
        yield site


def test_signing_keys_are_rotated_under_load_without_a_delivery_lost_or_refused(
    site: Site,
) -> None:
    with Load(site) as load:
        load.go_on()
        keys = rotate(site)
        load.go_on()  # deliveries are signed with the key that was the next one
        restart_with(site, keys)
        load.go_on()
    site.wait_until_settled(load.ids, 90)
    records = site.raw_records(load.ids)

    assert {record and record["status"] for record in records.values()} == {"completed"}
    assert {record and record["attempt"] for record in records.values()} == {1}
    assert refused(site) == 0


def test_rolled_twice_deliveries_are_refused_until_a_restart_that_loses_none(site: Site) -> None:
    refused_before = refused(site)
    rotate(site)
    keys = rotate(site)
    submissions = site.submissions()
    ids = [new_request_id() for _ in range(3)]
    for request_id in ids:
        submissions.submit(SOUND, request_id=request_id)
    wait_for(lambda: refused(site) >= refused_before + len(ids))

    restart_with(site, keys)

    site.wait_until_settled(ids, 90)  # QStash comes again after some 25 s
    records = site.raw_records(ids)

    assert {record and record["status"] for record in records.values()} == {"completed"}
