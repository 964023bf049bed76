"""A drill: whatever arrives over HTTP, the service neither breaks nor tells about its inside."""

import base64
import json
import re
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from random import Random
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import fakeredis
from flask import Flask

from common.connection import connect
from common.failures import Failure
from common.qstash import QStashRefused, QStashUnclear
from common.store import Store
from tests.chaos.report import Row
from tests.chaos.target import Answer, Request, recorded_log, send
from tests.conftest import WEBHOOK_URL, make_settings, make_store
from tests.fakes import ADA, ANALYSIS, ID, OTHER_ID, FakeAnalyst, FakeQueue
from tests.tokens import FAILURE_URL, token
from webhook_service import MAX_BODY_BYTES, create_app
from webhook_service.answer import AnalysisFailed
from webhook_service.answer import Answer as ModelsAnswer

API_KEY = "a-key-of-the-api"
RECORDS_AT_ONCE = 500
MAX_PAUSE = 20  # requests: refused access to the model must not close the API for the rest
LEAST = {"202": 0.01, "422": 0.02, "calls of the model": 0.005}  # or it was all turned away outside
# An error's class, a place in the code, a traceback: nobody outside needs to know.
INSIDE = re.compile(
    rb"Traceback|[A-Z]\w+(Error|Exception)\b|\w+/\w+\.py|site-packages|\b(common|webhook_service"
    rb"|redis|werkzeug|flask|pydantic|openai|qstash)[./]\w"
)
WEBHOOKS = {"/webhook": WEBHOOK_URL, "/webhook/failure": FAILURE_URL}
OUTCOMES: list[ModelsAnswer | Exception] = [
    ModelsAnswer(ANALYSIS, model="fake"),
    *(AnalysisFailed(failure, "cause", timedelta(seconds=1)) for failure in list(Failure)[:13]),
    RuntimeError("a fault of ours"),
]
TROUBLES: list[Exception | None] = [None, None, None, QStashRefused("no"), QStashUnclear("perhaps")]


class Fuzzer:
    """Makes requests from one source of chance, half of them nearly right."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.ids = [ID, OTHER_ID]
        self.chance = random.random
        self.choice = random.choice

    def request(self) -> Request:
        path, body = self.path(), self.body()
        headers = {
            name: self.choice(values)()
            for name, values in self.headers().items()
            if self.chance() < 0.1
        }
        if path in WEBHOOKS and self.chance() < 0.8:
            body = self.message(path) if self.chance() < 0.5 else body
            headers["Upstash-Signature"] = token(WEBHOOKS[path], body)
        if path == "/analyze" and self.chance() < 0.8:
            body = self.form() if self.chance() < 0.5 else body
            headers["Content-Type"] = "application/json"
        if self.chance() < 0.7:
            headers["Authorization"] = f"Bearer {API_KEY}"
        usual = "POST" if path in (*WEBHOOKS, "/analyze") else "GET"
        return Request(
            usual if self.chance() < 0.85 else self.choice(METHODS),
            unquote_to_bytes(path).decode("utf-8", "surrogateescape"),
            body,
            headers,
            query=quote(self.text()) if self.chance() < 0.1 else "",
            chunked=self.chance() < 0.1,
        )

    def path(self) -> str:
        real = self.choice(PATHS)
        if real == "/analyze/":
            real += self.id() if self.chance() < 0.7 else quote(self.text(), safe="/")
        if self.chance() < 0.8:
            return real
        at = self.random.randrange(len(real) + 1)
        return self.choice(
            [
                "/ready",
                real + "/",
                real.upper(),
                "/" + real,
                real.replace("/", "//"),
                real + "/../health",
                real[:at] + self.choice(ODD_IN_PATHS) + real[at:],
                real[:at] + quote(self.text()) + real[at:],
                real + "/x" * 4000,
                self.text(),
                "",
                "*",
            ]
        )

    def headers(self) -> dict[str, list[Callable[[], str]]]:
        """Per header, ways to make a value of it."""
        good, bad = token(WEBHOOK_URL, b"{}"), self.latin

        def of(*values: str) -> Callable[[], str]:
            return lambda: self.choice(values)

        return {
            "Content-Type": [
                of("application/json", "application/json; charset=x", "text/plain", ""),
                of("multipart/form-data; boundary=x", "application/x-www-form-urlencoded"),
                bad,
            ],
            "Content-Length": [
                of("0", "-1", "7", "99999999999999999999", "x", "1e3", " 5", ""),
                bad,
            ],
            "Transfer-Encoding": [of("chunked", "gzip, chunked", "identity"), bad],
            "Content-Encoding": [of("gzip", "br", "x")],
            "Host": [of("", "x", "a b", "[::1", "xn--a.example", "x:99999", "." * 300), bad],
            "Authorization": [of(f"Bearer {API_KEY}", "Bearer", "Basic YTpi", "Basic \xff"), bad],
            "Idempotency-Key": [of("a", "b", "", "x" * 256), bad],
            "Upstash-Signature": [of(good, "a.b.c", "x" * 8192), bad],
            "Upstash-Message-Id": [of("msg_1"), bad],
            "X-Forwarded-For": [of("127.0.0.1", "x, y"), bad],
            "X-Forwarded-Proto": [of("https", "javascript")],
            "X-Forwarded-Prefix": [of("/evil", "//evil.example")],
            "X-HTTP-Method-Override": [of("DELETE")],
            "Accept": [of("text/html", "*/*;q=x"), bad],
            "Cookie": [of("session=x"), bad],
            "Expect": [of("100-continue", "x")],
            "If-None-Match": [bad],
            "Range": [of("bytes=0-1", "bytes=9-1")],
            "Date": [bad],
        }

    def message(self, path: str) -> bytes:
        """A message as QStash delivers it, most of them about an analysis that there is."""
        number = 1 if self.chance() < 0.7 else self.json(1)
        message = json.dumps({"requestId": self.id(), "round": number}).encode()
        if path == "/webhook":
            return message
        return json.dumps({"sourceBody": base64.b64encode(message).decode()}).encode()

    def id(self) -> str:
        """Most of them new: of the others little more can become."""
        return self.choice(self.ids[-3:] if self.chance() < 0.7 else self.ids)

    def form(self) -> bytes:
        """What a program sends to /analyze, most of it right."""
        fields = ADA.model_dump()
        for name in self.random.sample([*fields, "role", ""], self.choice([0, 0, 0, 1, 2])):
            fields[name] = self.json(1)
        return json.dumps(fields).encode()

    def body(self) -> bytes:
        kind = self.random.randrange(10)
        if kind < 3:
            return self.form()
        if kind == 3:
            nested = {"requestId": self.id(), "round": self.json(1)}
            return json.dumps(nested | {"sourceBody": self.json(2)}).encode()
        if kind < 6:
            return json.dumps(self.json(4), ensure_ascii=self.chance() < 0.5).encode(
                self.choice(["utf-8", "utf-8", "utf-16", "utf-32"]), "surrogatepass"
            )
        if kind == 6:
            return self.choice(BODIES)
        if kind == 7:
            return self.random.randbytes(self.random.randrange(40))
        good = bytearray(self.message("/webhook/failure" if self.chance() < 0.5 else "/webhook"))
        for _ in range(self.random.randrange(1, 4)):
            good[self.random.randrange(len(good))] = self.random.randrange(256)
        return bytes(good)

    def json(self, depth: int) -> Any:
        """Any value that JSON has, and some that it hasn't."""
        kind = self.random.randrange(9)
        if depth and kind == 0:
            return [self.json(depth - 1) for _ in range(self.random.randrange(4))]
        if depth and kind < 3:
            return {self.text(): self.json(depth - 1) for _ in range(self.random.randrange(4))}
        if kind < 6:
            return self.choice(VALUES)
        return self.text()

    def text(self) -> str:
        """Some characters, nasty ones among them."""
        length = self.choice([0, 1, 5, 20])
        drawn = (
            self.choice(NASTY) if self.chance() < 0.3 else chr(self.random.randrange(32, 127))
            for _ in range(length)
        )
        return "".join(drawn).encode("utf-8", "replace").decode()

    def latin(self) -> str:
        """A header's value as a WSGI server hands it on."""
        return "".join(chr(self.random.randrange(256)) for _ in range(self.random.randrange(20)))


PATHS = ["/webhook", "/webhook", "/webhook/failure", "/analyze", "/analyze", "/analyze/"]
PATHS += ["/health", "/"]
ODD_IN_PATHS = ["%00", "%2f", "%0d%0aX-Injected:1", "%ff", "%c0%af", ";a=b", "%25%30%30"]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "X", ""]
NASTY = list("\0\r\n\ud800\u202e\ufeffé😀\x7f%{'\"/;")
VALUES: list[Any] = [None, True, False, 0, -1, 1, 36, 121, 2**63, 10**4000, 0.5, 1e308, 1e-320]
VALUES += [float("nan"), float("inf"), "", " ", "36", "\ud800", "\0", ID, "x" * 2001, [], {}]
BODIES = [
    b"",
    b"null",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b'{"age": ' + b"9" * 60_000 + b"}",
    b'{"age": 1' + b"0" * 4290 + b', "name": "Ada", "description": "0123456789"}',
    b'{"name": "\\ud800", "age": 1, "description": "\\udc00\\ud800 0123456789"}',
    b'{"name": "Ada", "name": "Bob", "age": 1, "description": "twice the same key"}',
    b'{"requestId": "' + b"f" * 32 + b'", "round": 1' + b"0" * 5000 + b"}",
    b'{"sourceBody": "!!!!"}',
    b'{"sourceBody": "' + b"W1tb" * 10_000 + b'"}',
    b"x" * MAX_BODY_BYTES,
    b"x" * (MAX_BODY_BYTES + 1),
]


def http_fuzz(tries: int, seed: int) -> Row:
    """Send anything to everything, with Redis there and away; look at every answer."""
    random = Random(seed)
    fuzzer = Fuzzer(random)
    memory = fakeredis.FakeRedis(decode_responses=True)
    there, away = make_store(memory), make_store(connect(make_settings()))
    queue, analyst = FakeQueue(), FakeAnalyst()

    def app(
        store: Store, *, key: str = f"tester:{sha256(API_KEY.encode()).hexdigest()}", rate: int = 0
    ) -> Flask:
        settings = make_settings(api_keys=key, api_rate_limit=rate, qstash_delay="0s")
        return create_app(settings, store=store, queue=queue, analyst=analyst, open_api=True)

    apps = [app(there), app(there, rate=30), app(away), app(there, key="")]
    statuses: dict[int, int] = {}
    wrong = 0
    first = ""
    with recorded_log() as log:
        for number in range(tries):
            analyst.answers = [random.choice(OUTCOMES)]
            queue.trouble = random.choice(TROUBLES)
            request = fuzzer.request()
            fault = _fault(random.choice(apps), request, fuzzer, statuses)
            if fault:
                wrong += 1
                first = first or f"no. {number}: {fault} for {str(request)[:1000]}, log: {log}"
            log.clear()
            if number % MAX_PAUSE == 0:
                memory.delete("paused")
            if len(fuzzer.ids) > RECORDS_AT_ONCE:
                memory.flushall()
                del fuzzer.ids[2:]
    reached = {"calls of the model": len(analyst.calls)} | {str(s): n for s, n in statuses.items()}
    wrong += sum(reached.get(name, 0) < least * tries for name, least in LEAST.items())
    note = first or ", ".join(f"{n:,} × {name}" for name, n in sorted(reached.items()))
    return Row("HTTP requests of any shape that broke something", tries, wrong, note)


def _fault(app: Flask, request: Request, fuzzer: Fuzzer, statuses: dict[int, int]) -> str:
    """Say what is wrong with the answer; "" when nothing is."""
    try:
        answer = send(app, request)
    except Exception as error:
        return f"raised {error!r}"
    statuses[answer.status] = statuses.get(answer.status, 0) + 1
    if answer.status == 202:
        fuzzer.ids.append(json.loads(answer.body)["requestId"])
    return _fault_of(answer, request)


def _fault_of(answer: Answer, request: Request) -> str:
    if answer.status >= 500 and (answer.status != 503 or "Retry-After" not in answer.headers):
        return f"answered {answer.status}"
    if inside := INSIDE.search(answer.body):
        return f"told {inside[0]!r}"
    if any(char in value for value in answer.headers.values() for char in "\r\n"):
        return "a header was injected"
    if answer.status < 400 or _is_for_qstash(answer, request):
        return ""
    if answer.headers["Content-Type"] != "application/problem+json":
        return f"{answer.status} is no problem+json"
    if request.method != "HEAD" and json.loads(answer.body)["status"] != answer.status:
        return f"{answer.status} is not what its body says"
    return ""


def _is_for_qstash(answer: Answer, request: Request) -> bool:
    """QStash reads the status alone: a refused delivery says no more."""
    plain = {401: b"", 489: b"not a message of ours", 503: b"retry"}
    bodies = {plain.get(answer.status), b"operator must act" if answer.status == 489 else None}
    return "/" + request.path.lstrip("/") in WEBHOOKS and answer.body in bodies
