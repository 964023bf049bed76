"""What the model's side answers.

Imports neither the SDK nor pytest: processes of their own use it, and pay for what they import.
"""

from tests.fakes import ANALYSIS

WORDS = "the provider's own words"  # which are for nobody else
GOOD = ANALYSIS.model_dump_json()


def response(text: str | None = None, **changes: object) -> dict[str, object]:
    """What the Responses API answers; `text` is the model's output."""
    content = [] if text is None else [{"type": "output_text", "text": text, "annotations": []}]
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "gpt-test",
        "output": [
            {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": content,
            }
        ],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
    } | changes


def refusal() -> dict[str, object]:
    message = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "refusal", "refusal": WORDS}],
    }
    return response(output=[message])


def error(code: str | None, kind: str = "x", param: str | None = None) -> dict[str, object]:
    return {"error": {"message": WORDS, "type": kind, "code": code, "param": param}}
