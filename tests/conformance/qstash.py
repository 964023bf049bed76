"""The QStash stand-in, and what we publish, against Upstash's own description of QStash."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml
from jsonschema import Draft202012Validator
from starlette.routing import Route

from common.qstash import Queue
from common.settings import DEVELOPMENT_TOKEN
from local_stack.qstash_message import FORWARDING, HEADERS
from local_stack.qstash_server import TO_LIST, TO_PUBLISH, QStashServer
from tests.conftest import make_settings
from tests.fakes import NOW, pending
from tests.http_server import HttpServer, answer, serve
from tests.processes import start_stand_in, wait_for

AUTHORIZATION = {"Authorization": f"Bearer {DEVELOPMENT_TOKEN}"}
PUBLISH = "POST /v2/publish/{destination}"
UNREACHED = "http://127.0.0.1:1"
TAKEN = {PUBLISH: TO_PUBLISH, "GET /v2/dlq": TO_LIST}
ELSEWHERE = {  # what the description lacks
    f"{PUBLISH} 202": "https://upstash.com/docs/qstash/features/deduplication",
    "cancelled": "what the TypeScript SDK reads of a single cancel, too",
    "retryDelayExpression": "what both SDKs read",
    "dlqId": "what both SDKs read",
}


class Held(NamedTuple):
    """Whether one thing holds; why not, or where it is documented if the description lacks it.

    `name` begins with its kind: "answered", "refused", "taken" or "published".
    """

    name: str
    ok: bool
    why: str = ""


class Description:
    """Upstash's `openapi.yaml`."""

    def __init__(self, specs: Path) -> None:
        self._whole = yaml.safe_load((specs / "qstash.yaml").read_text())
        self.operations: dict[str, dict[str, Any]] = {
            f"{method.upper()} {path}": operation
            for path, operations in self._whole["paths"].items()
            for method, operation in operations.items()
        }

    def parameters(self, operation: str, place: str) -> dict[str, dict[str, Any]]:
        """The schemas of an operation's headers, or of its query, by name."""
        given = self.operations[operation].get("parameters", [])
        return {each["name"]: each.get("schema", {}) for each in given if each["in"] == place}

    def schema(self, operation: str, status: int) -> Any:
        """The schema of an answer, or None. Any operation may answer with an error."""
        described = self.operations[operation]["responses"].get(str(status))
        if described is None:
            return {"$ref": "#/components/schemas/Error"} if status in range(400, 500) else None
        schema = described.get("content", {}).get("application/json", {}).get("schema", {})
        return schema.get("oneOf", [schema])[0]  # a publish to one URL; the others fit as well

    def faults(self, value: object, schema: dict[str, Any]) -> set[str]:
        """What is wrong with a value; a field that is not described is wrong, too."""
        validator = Draft202012Validator(self._whole | schema)
        messages = {error.message for error in validator.iter_errors(value)}
        return messages | self._undescribed(value, schema)

    def _undescribed(self, value: object, schema: dict[str, Any]) -> set[str]:
        if "$ref" in schema:
            schema = self._whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if isinstance(value, list):
            return {name for each in value for name in self._undescribed(each, schema["items"])}
        if not isinstance(value, dict) or "additionalProperties" in schema:
            return set()
        known = schema.get("properties", {})
        inner = (self._undescribed(value[name], known[name]) for name in value.keys() & known)
        return set(value.keys() - known).union(*inner)


def check(specs: Path) -> list[Held]:
    """Ask a stand-in for everything that is described, and capture what we publish."""
    description = Description(specs)
    failing = answer(404, b"404 Not Found", X_Why="a")
    with (
        start_stand_in("qstash_server") as url,
        serve(failing) as destination,
        httpx.Client(base_url=url, headers=AUTHORIZATION) as http,
    ):
        return [
            *_answered(description, http, destination),
            *_refused(description, http),
            *_taken(description),
            *_published(description),
        ]


def _answered(
    description: Description, http: httpx.Client, destination: HttpServer
) -> Iterator[Held]:
    """Every answer is described: its status, its fields and their types."""
    unasked = set(_offered())
    for operation, answered in _exchanges(http, destination):
        unasked.discard(_nameless(operation))
        name = f"{operation} {answered.status_code}"
        schema = description.schema(operation, answered.status_code)
        faults = set() if schema is not None else {name}
        faults |= description.faults(answered.json(), schema or description.schema(operation, 200))
        wrong = sorted(faults - ELSEWHERE.keys())
        lacking = [f"{fault}: {ELSEWHERE[fault]}" for fault in sorted(faults & ELSEWHERE.keys())]
        yield Held(f"answered: {name}", not wrong, "; ".join(wrong or lacking))
    yield from (Held(f"answered: {each}", False, "was not asked") for each in unasked)


def _exchanges(http: httpx.Client, destination: HttpServer) -> Iterator[tuple[str, httpx.Response]]:
    """Each answer that the stand-in can give, with the operation it is described at."""
    waiting = {
        "Content-Type": "application/json",
        "Upstash-Method": "PUT",
        "Upstash-Delay": "1h",
        "Upstash-Retries": "2",
        "Upstash-Retry-Delay": "1000",
        "Upstash-Timeout": "1m",
        "Upstash-Failure-Callback": UNREACHED,
        "Upstash-Flow-Control-Key": "k",
        "Upstash-Flow-Control-Value": "parallelism=2",
        "Upstash-Label": "one,two",
        "Upstash-Forward-X-Trace": "a",
        "Upstash-Deduplication-Id": "d-1",
    }
    to_destination = f"/v2/publish/{UNREACHED}"
    published = http.post(to_destination, headers=waiting, content=b"{}")
    yield PUBLISH, published
    yield PUBLISH, http.post(to_destination, headers=waiting, content=b"{}")
    yield PUBLISH, http.post(to_destination, headers={"Upstash-Delay": "soon"})
    yield PUBLISH, httpx.post(f"{http.base_url}{to_destination}")
    message = f"/v2/messages/{published.json()['messageId']}"
    for verb in ("GET", "DELETE"):
        operation = f"{verb} /v2/messages/{{messageId}}"
        yield operation, http.request(verb, message)
        yield operation, http.request(verb, "/v2/messages/msg_unknown")
    at_once = {"Upstash-Retries": "0", **{k: v for k, v in waiting.items() if "Label" in k}}
    for body in (b"text", b"\xff"):
        http.post(f"/v2/publish/{destination.url}", headers=at_once, content=body)
    wait_for(lambda: len(http.get("/v2/dlq").json()["messages"]) == 2)
    page = http.get("/v2/dlq", params={"count": 1, "url": destination.url})
    yield "GET /v2/dlq", page
    yield "GET /v2/dlq", http.get("/v2/dlq", params={"cursor": page.json()["cursor"]})
    yield "GET /v2/dlq", http.get("/v2/dlq", params={"count": 101})
    letter = page.json()["messages"][0]["dlqId"]
    yield "GET /v2/dlq/{dlqId}", http.get(f"/v2/dlq/{letter}")
    yield "GET /v2/dlq/{dlqId}", http.get("/v2/dlq/1-0")
    yield "GET /v2/keys", http.get("/v2/keys")
    yield "POST /v2/keys/rotate", http.post("/v2/keys/rotate")


def _refused(description: Description, http: httpx.Client) -> Iterator[Held]:
    """Everything described that the stand-in leaves out is refused, and named."""

    def ask(method: str, path: str, named: str, **given: Any) -> Held:
        answered = http.request(method, path, **given)
        is_refused = answered.status_code == 501 and named.lower() in answered.text.lower()
        why = "" if is_refused else f"{answered.status_code} {answered.text:.100}"
        return Held(f"refused: {method} {path} {named}", is_refused, why)

    offered = _offered()
    for operation in description.operations:
        method, path = operation.split(" ")
        path = f"/v2/publish/{UNREACHED}" if operation == PUBLISH else re.sub("{.*?}", "x", path)
        if _nameless(operation) not in offered:
            yield ask(method, path, path)
            continue
        for place, given in (("header", "headers"), ("query", "params")):
            for name in description.parameters(operation, place):
                name = name.replace("*", "X")
                if not _is_taken(operation, place, name):
                    yield ask(method, path, name, **{given: {name: "1"}})


def _taken(description: Description) -> Iterator[Held]:
    """Whatever the stand-in takes is described."""
    described = {
        *map(_nameless, description.operations),
        *(name.lower() for name in description.parameters(PUBLISH, "header")),
        *description.parameters("GET /v2/dlq", "query"),
    }
    listing = re.findall(r"\w+", TO_LIST.removeprefix("parameter"))
    for name in [*_offered(), *HEADERS, *(f"{prefix}*" for prefix in FORWARDING), *listing]:
        yield Held(f"taken: {name}", name in described, "" if name in described else "unknown")


def _offered() -> list[str]:
    return [
        _nameless(f"{method} {route.path}")
        for route in QStashServer().app.routes
        if isinstance(route, Route) and route.path != "/faults"  # ours alone
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def _nameless(operation: str) -> str:
    return re.sub("{.*?}", "{}", operation)


def _is_taken(operation: str, place: str, name: str) -> bool:
    if place == "header" and not name.lower().startswith("upstash-"):
        return True
    what = f"header {name.lower()}" if place == "header" else f"parameter {name}"
    return bool(re.fullmatch(TAKEN.get(operation, ""), what))


def _published(description: Description) -> Iterator[Held]:
    """Every header that the SDK sends for us is described, and its value has the type."""
    with serve(answer(200, {"messageId": "msg_1"})) as server:
        queue = Queue(make_settings(qstash_url=server.url, qstash_parallelism=7))
        queue.publish(pending(), now=NOW)
    lines = server.requests[0].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    yield Held(f"published: {lines[0]}", lines[0].startswith("POST /v2/publish/https://"))
    schemas = {
        name.lower(): schema for name, schema in description.parameters(PUBLISH, "header").items()
    }
    for name, value in (line.lower().split(": ", 1) for line in lines[1:]):
        if name.startswith("upstash-") or name == "content-type":
            schema = schemas.get(name)
            typed = int(value) if schema and schema["type"] == "integer" else value
            faults = {"unknown"} if schema is None else description.faults(typed, schema)
            yield Held(f"published: {name}", not faults, "; ".join(sorted(faults)))
