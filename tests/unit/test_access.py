"""Which programs may use the API, what they find, and how often; on the real server."""

import json
from collections.abc import Callable
from hashlib import sha256

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common.connection import connect
from common.record import AnalysisRecord
from common.store import Store
from tests.conftest import make_settings, make_store
from tests.fakes import ADA, ID, LEASE, FakeAnalyst, FakeQueue, pending, with_fields
from webhook_service import create_app

KEYS = ",".join(
    f"{name}:{sha256(key.encode()).hexdigest()}"
    for name, key in [("app", "old-key"), ("app", "new-key"), ("other", "other-key")]
)
HERE = "192.0.2.1"


@pytest.fixture
def store(real_redis: redis.Redis) -> Store:
    return make_store(real_redis)


@pytest.fixture
def service(valkey: str, store: Store) -> Callable[..., FlaskClient]:
    """Start a service; each one is a new process as far as Redis can see."""

    def start(*, open_api: bool = False, **changes: object) -> FlaskClient:
        settings = make_settings(**{"redis_url": valkey, "api_keys": KEYS} | changes)
        started = make_store(connect(settings))
        return create_app(
            settings, store=started, queue=FakeQueue(), analyst=FakeAnalyst(), open_api=open_api
        ).test_client()

    return start


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
    return [json.loads(line) for line in caplog.text.splitlines()]


def headers_for(key: str | None, **more: str) -> dict[str, str]:
    return ({"Authorization": f"Bearer {key}"} if key else {}) | more


def post(
    client: FlaskClient, key: str | None = "new-key", address: str = HERE, **headers: str
) -> TestResponse:
    return client.post(
        "/analyze",
        json=ADA.model_dump(),
        headers=headers_for(key, **{name.replace("_", "-"): v for name, v in headers.items()}),
        environ_base={"REMOTE_ADDR": address},
    )


def get(client: FlaskClient, path: str, key: str | None = "new-key") -> TestResponse:
    return client.get(path, headers=headers_for(key), environ_base={"REMOTE_ADDR": HERE})


# ── Whose it is ──


def test_an_analysis_is_found_by_every_key_of_its_maker_and_by_no_other(
    service: Callable[..., FlaskClient],
) -> None:
    client = service()
    path = post(client, "old-key").headers["Location"]

    theirs, unknown = get(client, path, "other-key"), get(client, f"/analyze/{ID}", "other-key")

    assert get(client, path, "old-key").status_code == 200
    assert get(client, path, "new-key").status_code == 200
    assert (theirs.status_code, theirs.data) == (404, unknown.data)


@pytest.mark.parametrize("open_api", [False, True])
def test_what_was_made_on_the_page_is_found_by_no_key(
    service: Callable[..., FlaskClient], store: Store, open_api: bool
) -> None:
    store.create(with_fields(pending(store.now()), owner_hash="0" * 64))

    client = service(open_api=open_api, api_keys="" if open_api else KEYS)

    assert get(client, f"/analyze/{ID}").status_code == 404


def test_an_analysis_of_an_older_version_does_not_say_who_made_it_and_is_found(
    service: Callable[..., FlaskClient], store: Store, real_redis: redis.Redis
) -> None:
    record = pending(store.now())
    old = record.model_dump_json(by_alias=True, exclude={"created_by", "tokens"})
    real_redis.set(f"analysis:{{{ID}}}", old)

    assert store.read(ID) == record
    assert get(service(), f"/analyze/{ID}").status_code == 200


def test_an_analysis_of_the_earlier_version_is_found_by_its_maker_alone(
    service: Callable[..., FlaskClient], store: Store, real_redis: redis.Redis
) -> None:
    record = pending(store.now()).model_copy(update={"created_by": "app"})
    data = json.loads(record.model_dump_json(by_alias=True)) | {"schemaVersion": 1}
    old = json.dumps(data | {"madeBy": data.pop("createdBy")})
    real_redis.set(f"analysis:{{{ID}}}", old)

    assert get(service(), f"/analyze/{ID}").status_code == 200
    assert get(service(), f"/analyze/{ID}", "other-key").status_code == 404


def test_a_second_try_keeps_its_maker() -> None:
    record = AnalysisRecord.new(
        ID,
        ADA,
        owner_hash=None,
        created_by="app",
        now=(first := pending()).created_at,
        delay=first.due_at - first.created_at,
        deadline=first.deadline_at - first.due_at,
    )
    failed = record.give_up(of_round=1, now=record.due_at, lease=LEASE)

    reopened = failed.reopen(
        now=record.due_at,
        delay=first.due_at - first.created_at,
        deadline=first.deadline_at - first.due_at,
    )

    assert (reopened.round, reopened.created_by) == (2, "app")


def test_an_idempotency_key_belongs_to_a_name_and_outlives_a_rotated_key(
    service: Callable[..., FlaskClient],
) -> None:
    client = service()

    ids = [
        post(client, key, Idempotency_Key="the-same").get_json()["requestId"]
        for key in ("old-key", "new-key", "other-key")
    ]

    assert ids[0] == ids[1] != ids[2]


def test_the_local_stack_is_open_only_as_long_as_there_are_no_keys(
    service: Callable[..., FlaskClient],
) -> None:
    assert post(service(open_api=True, api_keys=""), None).status_code == 202
    assert post(service(open_api=True), None).status_code == 401
    assert post(service(open_api=False, api_keys=""), None).status_code == 403


# ── How often ──


def test_too_many_requests_are_told_when_to_come_back(
    service: Callable[..., FlaskClient],
) -> None:
    client = service(api_rate_limit=2)

    accepted = [post(client).status_code for _ in range(2)]
    refused = post(client)

    assert accepted == [202, 202]
    assert refused.status_code == 429
    assert refused.mimetype == "application/problem+json"
    assert 50 <= int(refused.headers["Retry-After"]) <= 61
    assert refused.get_json()["detail"].endswith(".")


def test_each_key_address_and_route_has_a_count_of_its_own(
    service: Callable[..., FlaskClient],
) -> None:
    client = service(api_rate_limit=1)
    path = post(client).headers["Location"]
    assert post(client).status_code == 429

    assert post(client, "other-key").status_code == 202
    assert post(client, address="192.0.2.2").status_code == 202
    assert get(client, path).status_code == 200
    assert get(client, path).status_code == 429


def test_a_rotated_key_brings_no_second_count(service: Callable[..., FlaskClient]) -> None:
    client = service(api_rate_limit=1)

    assert post(client, "old-key").status_code == 202
    assert post(client, "new-key").status_code == 429


def test_guesses_at_a_key_are_limited_too(service: Callable[..., FlaskClient]) -> None:
    client = service(api_rate_limit=2)

    guesses = [post(client, f"guess-{number}").status_code for number in range(3)]

    assert guesses == [401, 401, 429]
    assert post(client).status_code == 202


def test_a_restart_resets_no_count(service: Callable[..., FlaskClient]) -> None:
    before = service(api_rate_limit=1)
    post(before)

    assert post(service(api_rate_limit=1)).status_code == 429


def test_the_default_is_thirty_a_minute(service: Callable[..., FlaskClient]) -> None:
    client = service()

    statuses = [get(client, f"/analyze/{ID}").status_code for _ in range(31)]

    assert statuses == [404] * 30 + [429]


def test_with_keys_the_api_answers_to_any_name(service: Callable[..., FlaskClient]) -> None:
    headers = {"Host": "service.example", "Authorization": "Bearer old-key"}

    sent = service().post("/analyze", json=ADA.model_dump(), headers=headers)

    assert sent.status_code == 202


@pytest.mark.parametrize("changes", [{"api_rate_limit": 0}, {"api_keys": "", "open_api": True}])
def test_without_a_limit_or_without_keys_nothing_is_counted(
    service: Callable[..., FlaskClient], real_redis: redis.Redis, changes: dict[str, object]
) -> None:
    client = service(**changes)

    assert [get(client, f"/analyze/{ID}").status_code for _ in range(40)] == [404] * 40
    assert list(real_redis.scan_iter("LIMITS*")) == []


@pytest.mark.parametrize("path", ["/webhook", "/webhook/failure", "/health", "/ready"])
def test_deliveries_and_health_checks_are_never_limited(
    service: Callable[..., FlaskClient], real_redis: redis.Redis, path: str
) -> None:
    client = service(api_rate_limit=1)
    method = "POST" if path.startswith("/webhook") else "GET"

    statuses = {client.open(path, method=method).status_code for _ in range(40)}

    assert statuses == {401 if method == "POST" else 200}
    assert list(real_redis.scan_iter("LIMITS*")) == []


def test_every_count_of_a_rate_ends_by_itself(
    service: Callable[..., FlaskClient], real_redis: redis.Redis
) -> None:
    post(service())

    counts = list(real_redis.scan_iter("LIMITS*"))
    assert len(counts) == 1
    assert 0 < real_redis.ttl(counts[0]) <= 60


def test_redis_away_is_503_and_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    settings = make_settings(api_keys=KEYS)
    client = create_app(settings, queue=FakeQueue(), analyst=FakeAnalyst()).test_client()

    for response in (post(client), get(client, f"/analyze/{ID}"), post(client, "guess")):
        assert response.status_code == 503
        assert response.mimetype == "application/problem+json"
        assert response.headers["Retry-After"] == "10"
    assert client.post("/webhook").status_code == 401
    assert {line["event"] for line in lines(caplog)} == {"store unavailable", "delivery refused"}
    told = [line for line in lines(caplog) if line["event"] == "store unavailable"]
    assert [line["at"] for line in told] == ["/analyze", "/analyze/<request_id>", "/analyze"]
    assert told[0]["cause"].startswith("Redis: Conn")


def test_a_caller_that_is_refused_is_not_in_the_log(
    service: Callable[..., FlaskClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client = service(api_rate_limit=1)
    post(client)
    post(client)

    assert "too many requests" in [line["event"] for line in lines(caplog)]
    assert HERE not in caplog.text


# ── Behind proxies ──


@pytest.mark.parametrize(
    ("hops", "chain", "is_fooled"),
    [
        # The chain is what arrives: `{forged}` by the caller, the rest by the proxies.
        pytest.param(0, "{forged}", False, id="no proxy, a forged address"),
        pytest.param(0, "{forged}, {forged}", False, id="no proxy, two forged ones"),
        pytest.param(1, "{forged}, 198.51.100.7", False, id="one proxy"),
        pytest.param(1, "{forged}, {forged}, 198.51.100.7", False, id="one proxy, two forged"),
        pytest.param(2, "{forged}, 198.51.100.7, 10.0.0.1", False, id="two proxies"),
        pytest.param(2, "198.51.100.7", False, id="two expected, one has written"),
        pytest.param(2, "{forged}, 198.51.100.7", True, id="two expected, only one there"),
    ],
)
def test_a_forged_address_makes_no_new_caller_when_the_hops_are_exact(
    service: Callable[..., FlaskClient], hops: int, chain: str, is_fooled: bool
) -> None:
    client = service(api_rate_limit=1, trusted_proxies=hops)

    statuses = [
        post(client, X_Forwarded_For=chain.format(forged=f"203.0.113.{number}")).status_code
        for number in range(3)
    ]

    assert statuses == ([202] * 3 if is_fooled else [202, 429, 429])


@pytest.mark.parametrize(
    ("hops", "chain"),
    [(1, "{caller}"), (1, "1.2.3.4, {caller}"), (2, "{caller}, 10.0.0.1")],
)
def test_two_callers_behind_the_same_proxies_are_two(
    service: Callable[..., FlaskClient], hops: int, chain: str
) -> None:
    client = service(api_rate_limit=1, trusted_proxies=hops)

    statuses = [
        post(client, X_Forwarded_For=chain.format(caller=caller)).status_code
        for caller in ("198.51.100.7", "198.51.100.8", "198.51.100.7")
    ]

    assert statuses == [202, 202, 429]


def test_the_addresses_of_one_ipv6_network_are_one_caller(
    service: Callable[..., FlaskClient],
) -> None:
    client = service(api_rate_limit=1)

    statuses = [
        post(client, address=address).status_code
        for address in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1")
    ]

    assert statuses == [202, 429, 202]
