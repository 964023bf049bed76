"""A development tool: an OpenAI-compatible endpoint on loopback that asks no model.

`POST /v1/responses` counts words in the text it is sent and answers with that, in the JSON schema
that came along; the model is called `local-stand-in`, and the page says so.
"""

import json
import re
import time
import uuid
from collections import Counter
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local_stack.loopback import LoopbackOnly, serve

MODEL = "local-stand-in"
ONLY_MODEL = {"id": MODEL, "object": "model", "created": 0, "owned_by": "nobody"}
COMMON_WORDS = frozenset(
    """about after again also always because been before being between could does doing each every
    from have having here into just like more most much never often only other over really should
    since some still such than that their them then there these they thing things this those through
    under very want well were what when where which while will with would your""".split()  # noqa: SIM905 (a list of words reads better so)
)
MAX_THEMES = 4


def analyse(given: dict[str, object], schema: dict[str, Any]) -> dict[str, object]:
    """Fill the schema with what is counted in the input: two texts, two answers."""
    text = " ".join(str(value) for name, value in given.items() if name != "name")
    counted = count(str(given.get("name", "You")), text)
    return {
        name: counted[name] if name in counted else _filler(name, counted, field["type"])
        for name, field in schema["properties"].items()
    }


def count(name: str, text: str) -> dict[str, Any]:
    """Say what can be said of a text without understanding it."""
    words = re.findall(r"[^\W\d_]+", text)
    sentences = [part for part in re.split(r"[.!?…]+", text) if part.strip()]
    notable = [word.lower() for word in words if len(word) > 3]
    counts = Counter(word for word in notable if word not in COMMON_WORDS)
    themes = [word for word, _ in counts.most_common(MAX_THEMES)] or ["a short text"]
    per_sentence = len(words) / max(1, len(sentences))
    longest = max(words, key=len, default="…")
    return {
        "summary": (
            f"{name}, you wrote {_plural(len(words), 'word')} in "
            f"{_plural(len(sentences), 'sentence')}; the longest word is “{longest}”. "
            f"What you return to most is {themes[0]}."
        ),
        "tone": _tone(text, per_sentence),
        "themes": themes,
        "suggestions": [
            f"Say more about {themes[-1]}: it comes up only "
            f"{_plural(max(1, counts[themes[-1]]), 'time')}.",
            "Break up your sentences, they are long."
            if per_sentence > 18
            else "Join some of your short sentences, or leave them as brisk as they are.",
        ],
    }


def _filler(name: str, counted: dict[str, Any], kind: str) -> object:
    """Fill a field that this stand-in does not know, so that your own schema works."""
    fillers: dict[str, object] = {
        "string": f"{name.replace('_', ' ').capitalize()}: {counted['themes'][0]}",
        "array": counted["themes"],
        "integer": len(counted["themes"]),
        "number": float(len(counted["themes"])),
        "boolean": True,
    }
    return fillers[kind]


def _tone(text: str, words_per_sentence: float) -> str:
    if "!" in text:
        return "lively"
    if "?" in text:
        return "curious"
    return "thoughtful" if words_per_sentence > 12 else "matter-of-fact"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


async def responses(request: Request) -> Response:
    """Answer as the Responses API does, for a message that is our input as JSON."""
    try:
        body = await request.json()
        analysis = analyse(json.loads(body["input"]), body["text"]["format"]["schema"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return _error(400, "this stand-in doesn't know such a request", "invalid_request")
    text = {"type": "output_text", "text": json.dumps(analysis), "annotations": [], "logprobs": []}
    nothing = ("error", "incomplete_details", "instructions", "metadata", "temperature", "top_p")
    return JSONResponse(
        {
            **dict.fromkeys(nothing),
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "completed",
            "model": MODEL,
            "output": [
                {
                    "id": f"msg_{uuid.uuid4().hex}",
                    "type": "message",
                    "role": "assistant",
                    "status": "completed",
                    "content": [text],
                }
            ],
            "parallel_tool_calls": False,
            "tool_choice": "auto",
            "tools": [],
        }
    )


async def model(request: Request) -> Response:
    """Describe the only model."""
    if request.path_params["model"] == MODEL:
        return JSONResponse(ONLY_MODEL)
    return _error(404, "no such model", "model_not_found")


async def models(request: Request) -> Response:
    """List the only model."""
    return JSONResponse({"object": "list", "data": [ONLY_MODEL]})


def _error(status: int, message: str, code: str) -> Response:
    error = {"message": message, "code": code, "type": "invalid_request_error", "param": None}
    return JSONResponse({"error": error}, status)


app = Starlette(
    routes=[
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/models/{model}", model, methods=["GET"]),
        Route("/v1/models", models, methods=["GET"]),
    ],
    middleware=[Middleware(LoopbackOnly)],
)

if __name__ == "__main__":
    serve(app)
