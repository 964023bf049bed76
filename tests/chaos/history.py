"""What really happened to each record: every value it had, read from Redis's append-only file.

The product's own reading plays no part, nor does the server: a file is read.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

Raw = dict[str, Any]
KEY = re.compile(r"analysis:\{([0-9a-f]{32})\}")


def read_history(data: Path) -> dict[str, list[Raw]]:
    """For each request id all values that its record has had, in order."""
    history: dict[str, list[Raw]] = defaultdict(list)
    for command in _commands(data):
        if command[0].upper() == "SET" and (found := KEY.fullmatch(command[1])):
            history[found[1]].append(json.loads(command[2]))
    return history


def _commands(data: Path) -> Iterator[list[str]]:
    """The commands of the append-only file; a last one cut off by a kill is left out.

    Format: https://valkey.io/topics/protocol/ (each command an array of bulk strings).
    """
    for path in sorted((data / "appendonlydir").glob("*.incr.aof")):
        with path.open("rb") as file:
            while head := file.readline():
                try:
                    yield [_word(file) for _ in range(int(head[1:]))]
                except ValueError:  # cut off
                    break


def _word(file: BinaryIO) -> str:
    """Raises: ValueError at the end of the file."""
    word = file.read(int(file.readline()[1:]))
    file.readline()
    return word.decode()
