"""Product code that stops half-way, so that anything else can happen in between.

A `Step` runs in a thread of its own and stops at the gates it is told to; whoever started it
decides when it goes on, whether its last write is repeated as after a lost reply, or whether its
process dies there. Only one thread runs at a time, so that a run can be repeated exactly.
"""

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import redis


class Gate(StrEnum):
    """Where a step can stop."""

    BEFORE_WRITE = "before a write to Redis"
    AFTER_WRITE = "after a write, before its reply"
    IN_CALL = "while the model is asked"
    IN_PUBLISH = "after publishing, before QStash's answer"


class Died(BaseException):
    """The process ends here; nothing catches it."""


class Step:
    """One activity of the product; `result` or `error` is there once it `has_ended`."""

    current: "Step | None" = None  # the one whose thread runs

    def __init__(self, act: Callable[[], object], stops: frozenset[Gate]) -> None:
        self.at: Gate | None = None
        self.result: object = None
        self.error: BaseException | None = None
        self._run_action, self._stops = act, stops
        self._order = "go on"
        self._handed_back, self._may_run = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._let_run(self._thread.start)

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def go_on(self, order: str = "go on") -> None:
        """Run to the next gate or the end; "replay" repeats the last write, "die" ends it here."""
        self._order, self.at = order, None
        self._let_run(self._may_run.set)

    def stop_at(self, gate: Gate) -> str:
        """Called by its own thread: wait there if told so, and return the order to go on."""
        if gate not in self._stops:
            return "go on"
        self.at = gate
        self._may_run.clear()
        self._handed_back.set()
        self._may_run.wait()
        if self._order == "die":
            raise Died
        return self._order

    def _let_run(self, start: Callable[[], None]) -> None:
        self._handed_back.clear()
        Step.current = self
        start()
        self._handed_back.wait()
        Step.current = None
        if self.at is None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self.result = self._run_action()
        except BaseException as error:
            self.error = error
        self._handed_back.set()


def gate(name: Gate) -> str:
    """Stop here if a step runs that is told to."""
    return Step.current.stop_at(name) if Step.current else "go on"


class GatedRedis(redis.Redis):
    """A real client with a gate before and after each write, which `judge` sees happen."""

    judge: Callable[[Callable[[], Any]], Any]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        def command() -> Any:
            return super(GatedRedis, self).execute_command(*args, **options)  # type: ignore[no-untyped-call]

        if args[0] not in ("SET", "EVALSHA", "DEL"):
            return command()
        gate(Gate.BEFORE_WRITE)
        reply = self.judge(command)
        if gate(Gate.AFTER_WRITE) == "replay":
            reply = self.judge(command)
        return reply
