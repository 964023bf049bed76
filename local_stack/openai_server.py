"""A development tool: an OpenAI-compatible endpoint on loopback that asks no model.

`POST /v1/responses` really reads the text it is sent and answers from what it counted there, in
the JSON schema `Analysis`; it calls itself `local-stand-in`, and the page says so.
"""

import json
import re
import time
import uuid
from argparse import ArgumentParser
from collections import Counter

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

MODEL = "local-stand-in"
COMMON_WORDS = frozenset(
    """about after again also always because been before being between could does doing each every
    from have having here into just like more most much never often only other over really should
    since some still such than that their them then there these they thing things this those through
    under very want well were what when where which while will with would your""".split()  # noqa: SIM905 (a list of words reads better so)
)
MOST_THEMES = 4


def analyse(name: str, description: str) -> dict[str, object]:
    """Count what is in the text: two texts, two answers."""
    words = re.findall(r"[^\W\d_]+", description)
    sentences = [part for part in re.split(r"[.!?…]+", description) if part.strip()]
    counted = Counter(
        word.lower() for word in words if len(word) > 3 and word.lower() not in COMMON_WORDS
    )
    themes = [word for word, _ in counted.most_common(MOST_THEMES)] or ["a short text"]
    longest = max(words, key=len, default="…")
    per_sentence = len(words) / max(1, len(sentences))
    return {
        "summary": (
            f"{name}, your text has {_count(len(words), 'word')} in "
            f"{_count(len(sentences), 'sentence')}; its longest word is “{longest}”. "
            f"What you return to most is {themes[0]}."
        ),
        "tone": _tone(description, per_sentence),
        "themes": themes,
        "suggestions": [
            f"Say more about {themes[-1]}: it comes up only "
            f"{_count(max(1, counted[themes[-1]]), 'time')}.",
            "Break up your sentences, they are long."
            if per_sentence > 18
            else "Join some of your short sentences, or leave them as brisk as they are.",
        ],
    }


def _tone(text: str, words_per_sentence: float) -> str:
    if "!" in text:
        return "lively"
    if "?" in text:
        return "curious"
    return "thoughtful" if words_per_sentence > 12 else "matter-of-fact"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


async def responses(request: Request) -> Response:
    """Answer as the Responses API does, for a message that is our input as JSON."""
    try:
        input = json.loads((await request.json())["input"])
        analysis = analyse(str(input["name"]), str(input["description"]))
    except (ValueError, KeyError, TypeError):
        error = {"message": "not the request this stand-in knows", "code": "invalid_request"}
        return JSONResponse({"error": error}, 400)
    text = {"type": "output_text", "text": json.dumps(analysis), "annotations": []}
    return JSONResponse(
        {
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


app = Starlette(routes=[Route("/v1/responses", responses, methods=["POST"])])

if __name__ == "__main__":
    parser = ArgumentParser(description="Run the OpenAI stand-in on loopback.")
    parser.add_argument("--port", type=int, default=8081)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port, log_level="warning")
