"""Addresses of servers, most of them wrong in one part; and what a wrong setting must come to."""

from collections.abc import Sequence

import hypothesis
from hypothesis import strategies

from common.environment import SettingsError

SEARCHED = hypothesis.settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
ODD = strategies.text(
    strategies.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4
)


def part(*usual: str, odd: Sequence[str] = ()) -> strategies.SearchStrategy[str]:
    """Most often usual, so that an address has one odd part rather than six."""
    usually = strategies.sampled_from(usual)
    oddly = strategies.sampled_from(odd) | ODD if odd else ODD
    return strategies.integers(0, 9).flatmap(lambda at: usually if at else oddly)


def parameters(*usual: str, names: Sequence[str]) -> strategies.SearchStrategy[str]:
    """Parameters as users write them, or any of these names with a value that may be wrong."""
    any_server = ("socket_timeout=x", "host=a,b", "port=1,2", "user=%25")
    values = part("", "1", "none", "prefer", "true", "a,b", "/a", "%00", "99999")
    named = strategies.tuples(strategies.sampled_from(names), values).map("=".join)
    return part(*usual, *any_server) | named


def addresses(
    schemes: Sequence[str], parameter: strategies.SearchStrategy[str]
) -> strategies.SearchStrategy[str]:
    queries = strategies.lists(parameter, max_size=3).map(lambda given: "?" + "&".join(given))
    return strategies.tuples(
        part(*schemes),
        part("://"),
        part("", "u@", ":p@", "u:p@", "u:a%2Fb@", odd=("u:a/b?c@", "a@b@", ":[@", "%00:%ff@")),
        part(
            *("host", "", "[::1]", "1.2.3.4"),
            odd=("[v1.a]", "a..b", "a,b", "%2Frun", "a[::1]", "h" * 64),
        ),
        part("", ":1", odd=(":", ":0", ":99999", ":x", ":1,2")),
        part("", "/0", "/1", odd=("/", "/name", "//0", "/:memory:", "#")),
        strategies.just("") | queries,
    ).map("".join)


def assert_named_and_not_quoted(error: SettingsError, name: str, value: str) -> None:
    """The variable is the one problem there is, and nothing of its value is in the sentence."""
    problems = str(error).splitlines()[1:]
    assert len(problems) == 1
    assert problems[0].startswith(f"  {name}: ")
    assert len(value) < 3 or value not in str(error)
    assert "hunter" not in str(error)
