"""Whose request it is, as far as an address tells."""

from ipaddress import IPv4Address, IPv6Address, ip_address


def visitor_of(address: str | None, session: str) -> str:
    """Tell visitors of the page apart: by a public address, else by the session.

    An address that is none (loopback, a proxy's own) would make all visitors one.
    """
    parsed = _parse(address)
    return network(address) if address and parsed and parsed.is_global else session


def network(address: str) -> str:
    """The address of a caller; of an IPv6 one the /64, as all of it is usually one household's."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed or address[:64])


def _parse(address: str | None) -> IPv4Address | IPv6Address | None:
    """Read an address, also one with its port, as some proxies write it."""
    text = (address or "").strip()
    for candidate in (text, text.rpartition(":")[0].strip("[]")):
        try:
            parsed = ip_address(candidate)
        except ValueError:
            continue
        return getattr(parsed, "ipv4_mapped", None) or parsed
    return None
