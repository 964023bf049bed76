"""What a program is told when a limit is reached; on the real server."""

from collections.abc import Callable
from hashlib import sha256

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common.store import Store
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import ADA, FakeAnalyst, FakeQueue
from webhook_service import create_app

KEYS = f"app:{sha256(b'a-key').hexdigest()}"


@pytest.fixture
def store(real_redis: redis.Redis) -> Store:
    return make_store(real_redis)


@pytest.fixture
def service(store: Store) -> Callable[..., FlaskClient]:
    def start(**limits: object) -> FlaskClient:
        settings, chosen = make_settings(api_keys=KEYS), make_options(**limits)
        app = create_app(settings, chosen, store=store, queue=FakeQueue(), analyst=FakeAnalyst())
        return app.test_client()

    return start


def post(client: FlaskClient, idempotency_key: str | None = None) -> TestResponse:
    headers = {"Authorization": "Bearer a-key"}
    if idempotency_key:
        headers["Idempotency-Key"] = idempotency_key
    return client.post("/analyze", json=ADA.model_dump(), headers=headers)


def test_a_limit_that_is_everybodys_is_503_with_its_sentence(
    service: Callable[..., FlaskClient],
) -> None:
    client = service(daily_analyses=1)
    first = post(client, "first")

    refused = post(client)

    assert refused.status_code == 503
    assert refused.mimetype == "application/problem+json"
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    assert refused.get_json()["limit"] == "daily_analyses"
    again = post(client, "first")
    assert (again.status_code, again.data) == (202, first.data)


def test_a_submission_that_was_rejected_can_be_sent_again_with_its_key(
    service: Callable[..., FlaskClient], store: Store, real_redis: redis.Redis
) -> None:
    client = service()
    real_redis.set("paused", 1, ex=300)
    refused = post(client, "key")
    real_redis.delete("paused")

    accepted = post(client, "key")

    assert (refused.status_code, accepted.status_code) == (503, 202)
    record = store.read(accepted.get_json()["requestId"])
    assert record.created_by == "app"
