from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from common.deadline import run_within


@pytest.fixture(autouse=True)
def _closed_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the database connections that a test has opened: a command's end with its process."""
    made: list[AsyncEngine] = []
    begin = AsyncEngine.__init__

    def begin_and_note(engine: AsyncEngine, *arguments: Any) -> None:
        begin(engine, *arguments)
        made.append(engine)

    monkeypatch.setattr(AsyncEngine, "__init__", begin_and_note)
    yield
    for engine in made:
        run_within(5, engine.dispose())
