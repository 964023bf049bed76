"""What stands behind the servers: a chat model and Claude, faked, that answer as documented.

The first part of a path says what becomes of the call: /quota/v1/chat/completions. A good answer
is made of the text and the schema that came, so that it proves that both were passed on.
Sources: https://platform.openai.com/docs/api-reference/chat/object,
https://platform.openai.com/docs/guides/error-codes, https://api-docs.deepseek.com/api/create-chat-completion,
https://docs.claude.com/en/api/messages, https://docs.claude.com/en/api/errors
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from common.fields import Tokens
from local_stack.filler import fill

MODEL = "some-model"
TOKENS = Tokens(input_tokens=300, output_tokens=200)
THOUGHT = "Let me see."
REASONS = ("reasoning", "only-reasoning")
CUT_OFF = ("truncated", "only-reasoning")
ERRORS: dict[str, tuple[int, str | None, str | None, str]] = {
    "key": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: sk-bad."),
    "no-model": (404, "invalid_request_error", "model_not_found", "The model does not exist."),
    "rate": (429, "tokens", "rate_limit_exceeded", "Rate limit reached for some-model."),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
    "credit": (402, "unknown_error", "invalid_request_error", "Insufficient Balance"),
    "overloaded": (503, "server_error", None, "The engine is currently overloaded."),
}
CLAUDE_ERRORS: dict[str, tuple[int, str, str]] = {
    "key": (401, "authentication_error", "invalid x-api-key"),
    "no-model": (404, "not_found_error", "model: some-model"),
    "rate": (429, "rate_limit_error", "This request would exceed your account's rate limit."),
    "credit": (402, "billing_error", "There is an issue with your billing."),
    "overloaded": (529, "overloaded_error", "Overloaded"),
}
RETRY_AFTER_SECONDS = 7


@contextmanager
def serve_backends() -> Iterator[str]:
    """Serve on loopback, and tell the URL."""
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Server(ThreadingHTTPServer):
    """Says nothing of a connection that breaks: it does when the server before it ends."""

    def handle_error(self, *_: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    """One request to either."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing: what goes wrong shows at the other end."""

    def do_GET(self) -> None:
        model = {"id": MODEL, "object": "model", "created": 1, "owned_by": "nobody"}
        self._answer(200, {"object": "list", "data": [model]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault, _, api = self.path.strip("/").partition("/")
        if api == "v1/messages":
            self._answer(*claude(fault, request))
        elif api != "v1/chat/completions":
            self._answer(404, {"detail": "Not Found"})
        else:
            status, answer = chat(fault, request)
            if status == 200 and request.get("stream"):
                self._stream(answer)
            else:
                self._answer(status, answer)

    def _answer(self, status: int, answer: object) -> None:
        self._send(status, "application/json", json.dumps(answer))

    def _stream(self, answer: dict[str, Any]) -> None:
        choice = answer["choices"][0]
        message, end = choice["message"], choice["finish_reason"]
        head = {"id": answer["id"], "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        deltas = [message, {}]
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else end}]}
            for delta in deltas
        ]
        chunks.append({"choices": [], "usage": answer["usage"]})
        events = [json.dumps(head | chunk) for chunk in chunks]
        self._send(200, "text/event-stream", "".join(f"data: {e}\n\n" for e in [*events, "[DONE]"]))

    def _send(self, status: int, content_type: str, text: str) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", str(RETRY_AFTER_SECONDS))
        self.end_headers()
        self.wfile.write(content)


def chat(fault: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Answer as Chat Completions do; a model that reasons tells its thoughts as DeepSeek's does."""
    if fault in ERRORS:
        status, kind, code, told = ERRORS[fault]
        return status, {"error": {"message": told, "type": kind, "param": None, "code": code}}
    schema = request["response_format"]["json_schema"]["schema"]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _text(fault, request["messages"][-1]["content"], schema),
        "refusal": None,
    }
    if fault == "refusal":
        message |= {"content": None, "refusal": "I'm sorry, I can't assist with that request."}
    if fault in REASONS:
        message["reasoning_content"] = THOUGHT
    ends = {"filter": "content_filter", **dict.fromkeys(CUT_OFF, "length")}
    usage = {
        "prompt_tokens": TOKENS.input_tokens,
        "completion_tokens": TOKENS.output_tokens,
        "total_tokens": TOKENS.input_tokens + TOKENS.output_tokens,
        "completion_tokens_details": {"reasoning_tokens": 64 if fault in REASONS else 0},
    }
    choice = {"index": 0, "message": message, "finish_reason": ends.get(fault, "stop")}
    return 200, {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
    }


def claude(fault: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Answer as Anthropic's Messages do."""
    if fault in CLAUDE_ERRORS:
        status, kind, told = CLAUDE_ERRORS[fault]
        return status, {"type": "error", "error": {"type": kind, "message": told}}
    content = request["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    answer = _text(fault, text, request["output_format"]["schema"])
    parts: list[dict[str, str]] = []
    if fault in REASONS:
        parts.append({"type": "thinking", "thinking": THOUGHT, "signature": "c2ln"})
    if answer and fault != "refusal":
        parts.append({"type": "text", "text": answer})
    ends = {"refusal": "refusal", **dict.fromkeys(CUT_OFF, "max_tokens")}
    return 200, {
        "id": f"msg_{uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": parts,
        "stop_reason": ends.get(fault, "end_turn"),
        "stop_sequence": None,
        "usage": TOKENS.model_dump(),
    }


def _text(fault: str, given: str, schema: dict[str, Any]) -> str:
    """What the model writes."""
    text = json.dumps(fill(json.loads(given), schema))
    return {
        "fence": f"```json\n{text}\n```",
        "think": f"<think>\n{THOUGHT}\n</think>\n\n{text}",
        "truncated": text[:20],
        "only-reasoning": "",
        "filter": "",
    }.get(fault, text)
