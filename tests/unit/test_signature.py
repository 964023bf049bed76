"""Who is let in: QStash's own deliveries, meant for this URL, with this body, now."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Self

import jwt
import pytest
from flask.testing import FlaskClient

from local_stack import qstash_queue
from tests.chaos.deliveries import forged_deliveries, replayed_delivery
from tests.chaos.target import Untouched
from tests.conftest import WEBHOOK_URL, make_settings
from tests.fakes import FakeAnalyst, FakeQueue
from tests.tokens import ANOTHER, CALLBACK, CURRENT, FAILURE_URL, MESSAGE, NEXT, encode, sign, token
from webhook_service import create_app
from webhook_service.signature import SignatureRefused, verify

URLS = {"/webhook": WEBHOOK_URL, "/webhook/failure": FAILURE_URL}
HEADER: dict[str, object] = {"typ": "JWT", "alg": "HS256"}


def check(
    token: str | None, body: bytes = MESSAGE, keys: tuple[str, str] = (CURRENT, NEXT)
) -> None:
    verify(token, body, url=WEBHOOK_URL, keys=keys)


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(lambda: token(WEBHOOK_URL), id="as QStash makes them"),
        pytest.param(lambda: token(WEBHOOK_URL, jti=None), id="no jti"),
        pytest.param(lambda: token(WEBHOOK_URL, iat=None), id="no iat"),
        pytest.param(lambda: token(WEBHOOK_URL, aud="anyone"), id="an audience"),
        pytest.param(lambda: qstash_queue.sign(WEBHOOK_URL, MESSAGE, CURRENT), id="stand-in's"),
    ],
)
def test_a_genuine_delivery_is_let_in(good: Callable[[], str]) -> None:
    check(good())


# ── Forged deliveries, against the whole service ────────────────────────────────────────────


@dataclass(frozen=True)
class Forged:
    """The values of the Upstash-Signature headers, and the body that comes with them."""

    tokens: tuple[str, ...]
    body: bytes = MESSAGE


def forged(*tokens: str, body: bytes = MESSAGE) -> Forged:
    return Forged(tokens, body)


def resigned(signed: str, **header: object) -> str:
    """The same claims under another header, and the old signature."""
    _, claims, signature = signed.split(".")
    return f"{encode(json.dumps(HEADER | header).encode())}.{claims}.{signature}"


def the_other(url: str) -> str:
    return FAILURE_URL if url == WEBHOOK_URL else WEBHOOK_URL


NO_HEADER = "no Upstash-Signature header"
UNREADABLE = "not a QStash token: DecodeError"
WRONG_ALGORITHM = "not a QStash token: InvalidAlgorithmError"
INCOMPLETE = "not a QStash token: MissingRequiredClaimError"
UNKNOWN_KEY = "no known key (were the signing keys rotated?)"
OTHER_BODY = "body hash does not match"
CLAIMS_LEFT_OUT: list[dict[str, Any]] = [
    {name: None} for name in ("iss", "sub", "exp", "nbf", "body")
]

FORGERIES = [
    # No token, or nothing like one
    pytest.param(lambda url: forged(), NO_HEADER, id="no token"),
    pytest.param(lambda url: forged(""), NO_HEADER, id="empty"),
    pytest.param(lambda url: forged("garbage"), UNREADABLE, id="garbage"),
    pytest.param(lambda url: forged("a.b.c"), UNREADABLE, id="three parts of garbage"),
    pytest.param(lambda url: forged("x" * 8192), UNREADABLE, id="8 kB"),
    pytest.param(lambda url: forged("." * 8192), UNREADABLE, id="8 kB of parts"),
    pytest.param(lambda url: forged("é" * 100), UNREADABLE, id="not ASCII"),
    pytest.param(lambda url: forged(encode(b"[" * 6000) + ".e30.x"), UNREADABLE, id="nested deep"),
    # A good token, spelled wrongly
    pytest.param(lambda url: forged(token(url), token(url)), UNREADABLE, id="two headers"),
    pytest.param(lambda url: forged("garbage", token(url)), UNREADABLE, id="a good second header"),
    pytest.param(lambda url: forged("Bearer " + token(url)), UNREADABLE, id="with a scheme"),
    pytest.param(lambda url: forged(token(url).lower()), UNREADABLE, id="in lower case"),
    pytest.param(lambda url: forged(token(url) + " "), UNREADABLE, id="a space behind it"),
    pytest.param(lambda url: forged("\t" + token(url)), UNREADABLE, id="a tab before it"),
    pytest.param(lambda url: forged(token(url).replace(".", " .")), UNREADABLE, id="spaces in it"),
    pytest.param(lambda url: forged(token(url) + "."), UNREADABLE, id="four parts"),
    pytest.param(lambda url: forged(token(url)[:-3]), UNKNOWN_KEY, id="its end cut off"),
    pytest.param(
        lambda url: forged(token(url).rpartition(".")[0] + "."), UNKNOWN_KEY, id="no signature"
    ),
    # Another algorithm
    pytest.param(
        lambda url: forged(resigned(token(url), alg="none")), WRONG_ALGORITHM, id="alg none"
    ),
    pytest.param(
        lambda url: forged(resigned(token(url), alg="none").rpartition(".")[0] + "."),
        WRONG_ALGORITHM,
        id="alg none and no signature",
    ),
    pytest.param(
        lambda url: forged(token(url, header={"alg": "NONE"})), WRONG_ALGORITHM, id="alg NONE"
    ),
    pytest.param(
        lambda url: forged(token(url, header={"alg": "HS512"}, digest="sha512")),
        WRONG_ALGORITHM,
        id="HS512",
    ),
    pytest.param(
        lambda url: forged(token(url, header={"alg": "RS256"})), WRONG_ALGORITHM, id="alg RS256"
    ),
    pytest.param(
        lambda url: forged(token(url, header={"alg": ["HS256"]})), "token", id="a list of algs"
    ),
    pytest.param(
        lambda url: forged(token(url, header={"alg": None})), WRONG_ALGORITHM, id="alg null"
    ),
    # Another key
    pytest.param(lambda url: forged(token(url, key=ANOTHER)), UNKNOWN_KEY, id="another key"),
    pytest.param(lambda url: forged(token(url, key="")), UNKNOWN_KEY, id="an empty key"),
    pytest.param(
        lambda url: forged(token(url, key=ANOTHER, header={"jku": "https://evil.example/keys"})),
        UNKNOWN_KEY,
        id="a key to be fetched",
    ),
    pytest.param(
        lambda url: forged(resigned(token(url), kid="1")), UNKNOWN_KEY, id="a changed header"
    ),
    # Another time: see also the clocks, below
    pytest.param(
        lambda url: forged(token(url, exp=1)), "expired (compare the clocks)", id="expired"
    ),
    pytest.param(
        lambda url: forged(token(url, nbf=2**40)),
        "not yet valid (compare the clocks)",
        id="not yet valid",
    ),
    pytest.param(
        lambda url: forged(token(url, iat=2**40)),
        "not yet valid (compare the clocks)",
        id="issued in the future",
    ),
    # Another sender, another address
    pytest.param(
        lambda url: forged(token(url, iss="upstash")),
        "not a QStash token: InvalidIssuerError",
        id="wrong issuer",
    ),
    *(
        pytest.param(
            lambda url, other=other: forged(token(other(url))),
            lambda url, other=other: f"wrong url: got {other(url)!r}, want {url!r}",
            id=name,
        )
        for name, other in {
            "the other route's": the_other,
            "another host": lambda url: url.replace("service", "other"),
            "http for https": lambda url: url.replace("https", "http"),
            "a trailing slash": lambda url: url + "/",
            "a query": lambda url: url + "?a=b",
            "upper case": str.upper,
        }.items()
    ),
    # Another body
    pytest.param(lambda url: forged(token(url, b"{}")), OTHER_BODY, id="another body's token"),
    pytest.param(lambda url: forged(token(url), body=b""), OTHER_BODY, id="an empty body"),
    pytest.param(
        lambda url: forged(token(url), body=MESSAGE + b" "),
        OTHER_BODY,
        id="a space behind the body",
    ),
    pytest.param(lambda url: forged(token(url), body=b"\xff\xfe"), OTHER_BODY, id="not UTF-8"),
    # Claims that are missing, or something else
    *(
        pytest.param(
            lambda url, without=without: forged(token(url, **without)),
            INCOMPLETE,
            id=f"no {next(iter(without))}",
        )
        for without in CLAIMS_LEFT_OUT
    ),
    *(
        pytest.param(
            lambda url, claim=claim, value=value: forged(token(url, **{claim: value})),
            reason,
            id=f"{claim} {json.dumps(value)}",
        )
        for claim, value, reason in [
            ("iss", 7, "token"),
            ("iss", ["Upstash"], "token"),
            ("sub", 7, "token"),
            ("jti", 7, "token"),
            ("body", "", OTHER_BODY),
            ("body", 7, OTHER_BODY),
            ("body", ["x"], OTHER_BODY),
            ("body", "\ud800", OTHER_BODY),
            ("exp", "soon", "token"),
            ("exp", 1e400, "token"),
            ("nbf", {}, "token"),
            ("iat", [], "token"),
        ]
    ),
    pytest.param(
        lambda url: forged(sign(HEADER, ["Upstash"], CURRENT)), UNREADABLE, id="claims a list"
    ),
    pytest.param(lambda url: forged(sign([], {}, CURRENT)), UNREADABLE, id="header a list"),
]


@pytest.fixture(scope="module")
def target() -> Untouched:
    return Untouched()


@pytest.mark.parametrize("path", URLS)
@pytest.mark.parametrize(("forge", "reason"), FORGERIES)
def test_a_forged_delivery_is_401_with_the_true_reason_in_the_log_and_touches_nothing(
    target: Untouched,
    caplog: pytest.LogCaptureFixture,
    path: str,
    forge: Callable[[str], Forged],
    reason: str | Callable[[str], str],
) -> None:
    forged = forge(URLS[path])
    before = target.touches

    response = target.app.test_client().post(
        path,
        data=forged.body,
        headers=[("Upstash-Signature", token) for token in forged.tokens],
    )

    assert (response.status_code, response.data) == (401, b"")
    assert "Upstash-NonRetryable-Error" not in response.headers
    (line,) = caplog.text.splitlines()
    logged = json.loads(line)
    assert logged["event"] == "delivery refused"
    assert (reason if isinstance(reason, str) else reason(URLS[path])) in logged["cause"]
    secrets = [CURRENT, NEXT, *(part for token in forged.tokens for part in token.split("."))]
    assert not any(secret in line for secret in secrets if len(secret) > 20)
    assert target.touches == before


@pytest.mark.parametrize("path", URLS)
def test_the_same_delivery_unforged_gets_as_far_as_redis(target: Untouched, path: str) -> None:
    """The proof that the test before can fail: whoever gets in is seen."""
    body = MESSAGE if path == "/webhook" else CALLBACK
    before = target.touches

    response = target.app.test_client().post(
        path, data=body, headers={"Upstash-Signature": token(URLS[path], body)}
    )

    assert response.status_code == 503
    assert target.touches > before


def test_forged_deliveries_at_random_are_never_let_in() -> None:
    row = forged_deliveries(2000, seed=1)

    assert (row.tried, row.wrong) == (2000, 0), row.note


def test_one_good_delivery_that_comes_hundreds_of_times_is_analysed_once() -> None:
    row = replayed_delivery(300, seed=1)

    assert (row.tried, row.wrong) == (300, 0), row.note


# ── Keys and clocks ─────────────────────────────────────────────────────────────────────────

OLD, NEW, NEWEST = "old-key-" * 5, "new-key-" * 5, "newest-key-" * 4


@pytest.mark.parametrize("signing", [OLD, NEW, NEWEST])
@pytest.mark.parametrize(
    "configured",
    [
        pytest.param((OLD, NEW), id="before the rotation"),
        pytest.param((NEW, NEW), id="during: current changed"),
        pytest.param((OLD, NEWEST), id="during: next changed"),
        pytest.param((NEW, NEWEST), id="after the rotation"),
    ],
)
def test_a_delivery_is_let_in_exactly_if_signed_with_one_of_the_two_configured_keys(
    configured: tuple[str, str], signing: str
) -> None:
    current, following = configured
    settings = make_settings(qstash_current_signing_key=current, qstash_next_signing_key=following)
    client: FlaskClient = create_app(
        settings, store=Untouched().store, queue=FakeQueue(), analyst=FakeAnalyst()
    ).test_client()

    response = client.post(
        "/webhook",
        data=MESSAGE,
        headers={"Upstash-Signature": token(WEBHOOK_URL, key=signing)},
    )

    let_in, refused = 503, 401  # 503: Redis is away in this test
    assert response.status_code == (let_in if signing in configured else refused)


QSTASHS_CLOCK = 2_000_000_000  # far from today: a clock that isn't stopped shows


@pytest.fixture
def set_our_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stop the service's clock at this many seconds after QStash's."""

    def set_clock(seconds_ahead: int) -> None:
        class Stopped(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return cls.fromtimestamp(QSTASHS_CLOCK + seconds_ahead, tz or UTC)

        monkeypatch.setattr(jwt.api_jwt, "datetime", Stopped)

    return set_clock


def test_clocks_may_differ_by_30_seconds_either_way(set_our_clock: Callable[[int], None]) -> None:
    now = QSTASHS_CLOCK
    momentary = token(WEBHOOK_URL, iat=now, nbf=now, exp=now + 1)  # valid for this second alone

    for seconds_ahead in range(-30, 31):
        set_our_clock(seconds_ahead)
        check(momentary)


@pytest.mark.parametrize(
    ("seconds_ahead", "reason"), [(-31, "not yet"), (-3600, "not yet"), (31, "exp"), (3600, "exp")]
)
@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_clocks_that_differ_by_more_are_told(
    set_our_clock: Callable[[int], None], claim: str, seconds_ahead: int, reason: str
) -> None:
    now = QSTASHS_CLOCK
    early: dict[str, Any] = {"iat": 0, "nbf": 0} | {claim: now}
    momentary = token(WEBHOOK_URL, exp=now + 1, **early)
    set_our_clock(seconds_ahead)

    with pytest.raises(SignatureRefused, match=reason):
        check(momentary)


@pytest.mark.parametrize(("seconds_ahead", "is_let_in"), [(-30, True), (329, True), (330, False)])
def test_a_token_as_qstash_makes_it_lives_for_its_five_minutes(
    set_our_clock: Callable[[int], None], seconds_ahead: int, is_let_in: bool
) -> None:
    as_made = token(WEBHOOK_URL, iat=QSTASHS_CLOCK, nbf=0, exp=QSTASHS_CLOCK + 300)
    set_our_clock(seconds_ahead)

    if is_let_in:
        check(as_made)
    else:
        with pytest.raises(SignatureRefused, match="expired"):
            check(as_made)
