"""A log as it is deployed: each line is an event in JSON."""

import json
from typing import Any


def logged(text: str, event: str | None = None) -> list[dict[str, Any]]:
    """The lines of a log, all or those of one event; what others write between them is left out.

    Before a line may stand the name of its process, as `make run` writes it.
    """
    told = [line[line.find("{") :] for line in text.splitlines() if "{" in line and line[-1] == "}"]
    lines = [json.loads(line) for line in told]
    return [line for line in lines if event in (None, line["event"])]
