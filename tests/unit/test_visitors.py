"""Whose request it is, as far as an address tells."""

import pytest

from common.visitors import network, visitor_of


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:51234", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::/64"),
        ("[2a00:1450:4001:82a::1]:443", "2a00:1450:4001:82a::/64"),
        ("unix:", "unix:"),
        ("", ""),
        ("x" * 500, "x" * 64),
    ],
)
def test_a_caller_is_its_address_or_its_network(address: str, same: str) -> None:
    assert network(address) == same


@pytest.mark.parametrize(
    ("address", "known_as"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::/64"),
        ("10.0.0.7", "session"),
        ("127.0.0.1", "session"),
        ("nonsense", "session"),
        (None, "session"),
    ],
)
def test_a_visitor_is_a_public_address_or_a_session(address: str | None, known_as: str) -> None:
    assert visitor_of(address, "session") == known_as
