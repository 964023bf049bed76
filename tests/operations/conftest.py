from collections.abc import Iterator

import pytest

from operations.history.connections import Connections


@pytest.fixture(autouse=True)
def _closed_connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the connections that a test has opened: a process's end with it."""
    made: list[Connections] = []
    begin = Connections.__init__

    def begin_and_note(self: Connections, address: str) -> None:
        begin(self, address)
        made.append(self)

    monkeypatch.setattr(Connections, "__init__", begin_and_note)
    yield
    for connections in made:
        connections.close()
