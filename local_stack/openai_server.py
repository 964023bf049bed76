"""A development tool: an OpenAI-compatible endpoint on loopback that asks no model.

`POST /v1/responses` counts words in the texts it is sent and answers with that, in any JSON schema
that OpenAI's strict mode takes; another is refused. The model is called `local-stand-in`, and the
page says so.
"""

import json
import time
import uuid

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from common.strict_schema import Problem, strict_problems
from local_stack.filler import Unfillable, fill
from local_stack.loopback import LoopbackOnly, serve

MODEL = "local-stand-in"
ONLY_MODEL = {"id": MODEL, "object": "model", "created": 0, "owned_by": "nobody"}


async def responses(request: Request) -> Response:
    """Answer as the Responses API does, for a message that is our input as JSON."""
    try:
        body = await request.json()
        given, wanted = json.loads(body["input"]), body["text"]["format"]
        if not isinstance(given, dict):
            raise TypeError("no form")
        if wanted.get("strict") and (found := strict_problems(wanted["schema"])):
            return _illegal_schema(str(wanted.get("name")), found[0])
        answer = json.dumps(fill(given, wanted["schema"]))
    except Unfillable as error:
        return _error(400, str(error), "unsupported_by_stand_in")
    except (ValueError, KeyError, TypeError, AttributeError):
        return _error(400, "this stand-in doesn't know such a request", "invalid_request")
    text = {"type": "output_text", "text": answer, "annotations": [], "logprobs": []}
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


def _illegal_schema(name: str, problem: Problem) -> Response:
    """Refuse as OpenAI does: it tells the first problem."""
    message = f"Invalid schema for response_format '{name}': {problem.told()}."
    return _error(400, message, "invalid_json_schema", "text.format.schema")


def _error(status: int, message: str, code: str, param: str | None = None) -> Response:
    error = {"message": message, "code": code, "type": "invalid_request_error", "param": param}
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
