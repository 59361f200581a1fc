"""The networks that an API key is taken from: how they are written, and whether an address is in one. Pure."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from tenants.errors import Refused
from tenants.models import ApiKey

from .models import KeyAllowlist


def read(words: Iterable[str]) -> list[str]:
    """One spelling for each network, in the order given. Refuses 422: bad_network, too_many."""
    found = list(dict.fromkeys(network(word) for word in words))
    if len(found) > KeyAllowlist.MOST:
        raise Refused("too_many", f"A key has at most {KeyAllowlist.MOST} networks. Write larger ones.", 422, field="networks")
    return found


def network(word: str) -> str:
    try:
        loose = str(ip_network(word, strict=False))
    except ValueError:
        message = f"{word[:60]} is no network. Write it like 203.0.113.0/24, 2001:db8::/32 or 203.0.113.7."
        raise Refused("bad_network", message, 422, field="networks") from None
    try:
        return str(ip_network(word))
    except ValueError:
        raise Refused("bad_network", f"{word[:60]} has bits behind its mask. Write {loose}.", 422, field="networks") from None


def admits(address: str, key: ApiKey) -> bool:
    """Whether the key is taken from there. An address that cannot be read is in no network."""
    kept: KeyAllowlist | None = getattr(key, "allowlist", None)
    return kept is None or within(address, kept.networks)


def within(address: str, networks: Iterable[str]) -> bool:
    try:
        at: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    at = getattr(at, "ipv4_mapped", None) or at
    return any(at in ip_network(one) for one in networks)
