"""However much a server answers, little of it is read."""

import gzip
import socket

import pytest

from common.answer_size import MAX_ANSWER_BYTES
from common.failures import Failure
from common.qstash import QStashUnclear, Queue
from tests.conftest import make_settings
from tests.fakes import ADA
from tests.http_server import Behaviour, answer, serve
from webhook_service.analyst import Analyst
from webhook_service.answer import AnalysisFailed

BOMB = gzip.compress(b" " * 50_000_000)


class Endless:
    """A body without end, that counts how much is taken."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.taken = 0

    def __call__(self, connection: socket.socket) -> None:
        connection.sendall(
            f"HTTP/1.1 {self.status} X\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        while self.taken < 20 * MAX_ANSWER_BYTES:  # or the other side closes
            connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
            self.taken += 65536


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("call", ["analyse", "knows_model", "queue"])
def test_reading_ends_at_the_limit(status: int, call: str) -> None:
    endless = Endless(status)

    with serve(endless) as server:
        _expect_failure(server.url, call, "answer too large")

    assert endless.taken < 4 * MAX_ANSWER_BYTES


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("call", ["analyse", "knows_model", "queue"])
def test_a_compressed_answer_is_not_expanded(status: int, call: str) -> None:
    bomb: Behaviour = answer(status, BOMB, Content_Encoding="gzip")

    with serve(bomb) as server:
        _expect_failure(server.url, call, "answer compressed")
        assert b"accept-encoding: identity" in server.requests[0].lower()


def _expect_failure(url: str, call: str, cause: str) -> None:
    settings = make_settings(openai_base_url=url, qstash_url=url, openai_timeout_seconds=20)
    if call == "queue":
        with pytest.raises(QStashUnclear, match="AnswerTooLarge"):
            Queue(settings).signing_keys()
        return
    analyst = Analyst(settings)
    with pytest.raises(AnalysisFailed) as caught:
        analyst.analyse(ADA, "1") if call == "analyse" else analyst.knows_model()
    assert caught.value.failure is Failure.UNREADABLE_ANSWER
    assert caught.value.cause.startswith(cause)
