"""Who is let in: QStash's own deliveries, meant for this URL, with this body, now."""

import base64
import hashlib
import json
import time
from collections.abc import Callable

import jwt
import pytest

from local_stack import qstash_courier
from webhook_service.signature import SignatureRefused, verify

URL = "https://service.example/webhook"
CURRENT, NEXT = "current-key" * 6, "next-key" * 8
BODY = b'{"requestId": "x"}'


def token(key: str = CURRENT, algorithm: str = "HS256", **changes: object) -> str:
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": "Upstash",
        "sub": URL,
        "exp": now + 300,
        "nbf": 0,
        "iat": now,
        "jti": "jwt_1",
        "body": base64.urlsafe_b64encode(hashlib.sha256(BODY).digest()).decode(),
    }
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm)


def unsigned() -> str:
    return jwt.encode({"iss": "Upstash", "sub": URL}, "", algorithm="none")


def check(token: str | None, body: bytes = BODY) -> None:
    verify(token, body, url=URL, keys=(CURRENT, NEXT))


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(lambda: token(), id="current key"),
        pytest.param(lambda: token(NEXT), id="next key"),
        pytest.param(lambda: token(jti=None), id="no jti"),
        pytest.param(lambda: token(nbf=int(time.time()) + 20), id="our clock 20 s behind"),
        pytest.param(lambda: token(exp=int(time.time()) - 20), id="our clock 20 s ahead"),
        pytest.param(lambda: token(iat=int(time.time()) + 20), id="issued 20 s in the future"),
        pytest.param(lambda: token(aud="anyone"), id="an audience"),
    ],
)
def test_a_genuine_delivery_is_let_in(good: Callable[[], str]) -> None:
    check(good())


def test_the_stand_in_signs_as_qstash_does() -> None:
    signed = qstash_courier.sign(URL, BODY, CURRENT)

    check(signed)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param(lambda: None, "no Upstash-Signature", id="no token"),
        pytest.param(lambda: "", "no Upstash-Signature", id="empty token"),
        pytest.param(lambda: "garbage", "not a QStash token", id="garbage"),
        pytest.param(lambda: "a.b.c", "not a QStash token", id="three parts"),
        pytest.param(lambda: f"{token()},{token()}", "not a QStash token", id="two tokens"),
        pytest.param(lambda: "Bearer " + token(), "token", id="with a scheme"),
        pytest.param(lambda: "é" * 100, "token", id="not ASCII"),
        pytest.param(lambda: "x" * 8192, "token", id="8 kB"),
        pytest.param(lambda: unsigned(), "not a QStash token", id="alg none"),
        pytest.param(lambda: token(algorithm="HS512"), "not a QStash token", id="HS512"),
        pytest.param(lambda: token("another-key" * 6), "no known key", id="other key"),
        pytest.param(lambda: token(exp=int(time.time()) - 40), "expired", id="expired"),
        pytest.param(lambda: token(nbf=int(time.time()) + 60), "not yet valid", id="not yet valid"),
        pytest.param(lambda: token(iss="Someone"), "not a QStash token", id="wrong issuer"),
        pytest.param(lambda: token(iss=None), "not a QStash token", id="no issuer"),
        pytest.param(lambda: token(sub=None), "not a QStash token", id="no sub"),
        pytest.param(lambda: token(exp=None), "not a QStash token", id="no exp"),
        pytest.param(lambda: token(nbf=None), "not a QStash token", id="no nbf"),
        pytest.param(lambda: token(body=None), "not a QStash token", id="no body claim"),
        pytest.param(lambda: token(sub=URL + "/failure"), "wrong url", id="the failure callback's"),
        pytest.param(lambda: token(sub=URL + "/"), "wrong url", id="trailing slash"),
        pytest.param(
            lambda: token(sub=URL.replace("https", "http")), "wrong url", id="http for https"
        ),
        pytest.param(lambda: token(body="x"), "body hash", id="wrong body hash"),
        pytest.param(lambda: token(body=""), "body hash", id="empty body hash"),
        pytest.param(lambda: token(body=7), "body hash", id="body hash a number"),
        pytest.param(lambda: token(body=["x"]), "body hash", id="body hash a list"),
        pytest.param(lambda: token(body="\ud800"), "body hash", id="body hash a surrogate"),
        pytest.param(lambda: token(exp="soon"), "token", id="exp a word"),
        pytest.param(lambda: token(exp=1e400), "token", id="exp infinite"),
        pytest.param(lambda: token(nbf={}), "token", id="nbf an object"),
    ],
)
def test_anything_else_is_refused_with_the_true_reason(
    bad: Callable[[], str | None], reason: str
) -> None:
    with pytest.raises(SignatureRefused, match=reason):
        check(bad())


def test_another_body_is_refused() -> None:
    for body in (b"", BODY + b" ", b"\xff\xfe"):
        with pytest.raises(SignatureRefused, match="body hash"):
            check(token(), body)


def test_the_wrong_url_is_told_with_both_urls() -> None:
    with pytest.raises(SignatureRefused) as caught:
        check(token(sub="http://other.example/webhook"))

    assert "got 'http://other.example/webhook', want 'https://service.example/webhook'" in str(
        caught.value
    )


def test_claims_that_are_no_object_are_refused() -> None:
    signed = jwt.PyJWS().encode(json.dumps(["Upstash"]).encode(), CURRENT, algorithm="HS256")

    with pytest.raises(SignatureRefused):
        check(signed)
