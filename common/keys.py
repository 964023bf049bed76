"""A prefix before the name of every key, so that several deployments can share one Redis.

Sources: https://redis.io/docs/latest/commands/ and, for the idea, `global_keyprefix` of kombu.
"""

from typing import Any

NO_KEYS = {"TIME", "PING", "INFO", "CONFIG GET", "SCRIPT LOAD"}
ALL_KEYS = {"DEL", "EXISTS", "MGET", "UNLINK"}
SCRIPTS = {"EVAL", "EVALSHA"}  # the script, how many keys, the keys, the rest


def with_prefix(prefix: str, command: tuple[Any, ...]) -> tuple[Any, ...]:
    """Put the prefix before the keys of a command: of most, the first argument is the only one."""
    name, *arguments = command
    if not prefix or name in NO_KEYS:
        return command
    first, end = 0, 1
    if name in ALL_KEYS:
        end = len(arguments)
    elif name in SCRIPTS:
        first, end = 2, 2 + int(arguments[1])
    elif name == "SCAN":  # always with a pattern, behind the cursor and MATCH
        first, end = 2, 3
    keys = (f"{prefix}{key}" for key in arguments[first:end])
    return name, *arguments[:first], *keys, *arguments[end:]
