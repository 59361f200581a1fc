"""Which addresses are public, seen through every disguise. Pure; the guard of egress and of outgoing notices asks here."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_NAT64: Final = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL: Final = IPv6Network("64:ff9b:1::/48")
_BENCHMARK: Final = IPv4Network("198.18.0.0/15")


def reached(address: str) -> IPv4Address | IPv6Address:
    """The address that would really be reached: IPv4 taken out of its IPv6 clothing. Raises ValueError."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv4Address):
        return ip
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    return IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else ip


def is_public(ip: IPv4Address | IPv6Address) -> bool:
    """Whether an address is public unicast. Stricter than `is_global`, which lets a few old ranges through."""
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified:
        return False
    if isinstance(ip, IPv4Address):
        return ip not in _BENCHMARK
    return not (ip.is_site_local or ip in _NAT64_LOCAL)
