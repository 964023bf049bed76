"""What is published, with the real SDK; the faults are in test_qstash_faults.py."""

import json
from datetime import timedelta

import pytest

from common.queue import QStashRefused, Queue
from common.settings import ServiceSettings
from tests.conftest import make_settings
from tests.fakes import DELAY, ID, NOW, pending
from tests.http_server import Behaviour, answer, reset, serve

ACCEPTED = answer(201, {"messageId": "msg_1"})


def settings_for(url: str, **changes: object) -> ServiceSettings:
    return make_settings(qstash_url=url, **changes)


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def test_a_message_says_when_where_and_how_often_and_nothing_personal() -> None:
    with serve(ACCEPTED) as server:
        message_id = Queue(settings_for(server.url)).publish(pending(), now=NOW)

    request = server.requests[0]
    headers = headers_of(request)
    assert message_id == "msg_1"
    assert request.startswith(b"POST /v2/publish/https://service.example/webhook HTTP/1.1")
    assert json.loads(request.partition(b"\r\n\r\n")[2]) == {"requestId": ID, "round": 1}
    assert headers["upstash-delay"] == "60s"
    assert headers["upstash-retries"] == "3"
    assert headers["upstash-retry-delay"] == "45000 * (1 + retried)"
    assert headers["upstash-timeout"] == "35s"
    assert headers["upstash-deduplication-id"] == f"{ID}-1"
    assert headers["upstash-failure-callback"] == "https://service.example/webhook/failure"
    assert "upstash-flow-control-key" not in headers
    assert b"Ada" not in request


def test_a_message_published_late_waits_only_for_the_rest() -> None:
    with serve(ACCEPTED) as server:
        queue = Queue(settings_for(server.url))
        queue.publish(pending(), now=NOW + timedelta(seconds=45))
        queue.publish(pending(), now=NOW + 2 * DELAY)

    assert [headers_of(request)["upstash-delay"] for request in server.requests] == ["15s", "0s"]


def test_parallelism_is_asked_for_when_set() -> None:
    with serve(ACCEPTED) as server:
        Queue(settings_for(server.url, qstash_parallelism=7)).publish(pending(), now=NOW)

    assert headers_of(server.requests[0])["upstash-flow-control-value"] == "parallelism=7"


def test_no_error_repeats_the_token() -> None:
    settings = settings_for("http://name.invalid", qstash_token="eyJsecret")

    with pytest.raises(QStashRefused) as caught:
        Queue(settings).publish(pending(), now=NOW)

    assert "eyJsecret" not in str(caught.value)


@pytest.mark.parametrize("behaviour", [answer(202), answer(404, {"error": "none"}), reset])
def test_cancelling_never_fails(behaviour: Behaviour) -> None:
    with serve(behaviour) as server:
        Queue(settings_for(server.url)).cancel("msg_1")

    assert server.requests[0].startswith(b"DELETE /v2/messages/msg_1 ")
