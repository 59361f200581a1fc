"""The way out: what leaves, what never leaves, and what a failure is taken to mean. Everything is counted at a server."""

import asyncio
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.rules.dropping_server import Behaviour, DroppingServer, answer, dropping_server, gzip_bomb, kind
from tools.addresses import is_public, reached
from tools.egress import MAX_BYTES, Egress, EgressFailure, Exchange, build_request

METHODS = ["POST", "PUT", "DELETE", "GET"]


@pytest.fixture
async def server() -> AsyncIterator[DroppingServer]:
    async with dropping_server() as running:
        yield running


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    made = Egress()
    yield made
    await made.aclose()


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Every TCP socket made in this process from now on."""
    made: list[object] = []
    real = socket.socket

    class Counted(real):  # type: ignore[misc, valid-type]
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            if self.family != socket.AF_UNIX:  # an event loop wakes itself through those
                made.append(args)

    monkeypatch.setattr(socket, "socket", Counted)
    yield made


async def fetch(
    egress: Egress,
    server: DroppingServer,
    method: str = "GET",
    path: str = "/",
    *,
    timeout_s: float = 5,
    allow: frozenset[str] | None = None,
    fresh: bool = False,
) -> Exchange:
    body = None if method == "GET" else b"{}"
    request = build_request(method, server.origin + path, json_bytes=body)
    allowed = server.allow if allow is None else allow
    return await egress.exchange(request, allow=allowed, timeout_s=timeout_s, fresh=fresh)


async def failure(egress: Egress, server: DroppingServer, method: str = "GET", **options: object) -> EgressFailure:
    with pytest.raises(EgressFailure) as raised:
        await fetch(egress, server, method, **options)  # type: ignore[arg-type]
    return raised.value


@pytest.mark.mission("P3.2")
@pytest.mark.parametrize("drop", ["drop_after", "reset_after"])
@pytest.mark.parametrize("method", METHODS)
async def test_a_dropped_request_is_read_once_and_never_sent_twice(egress: Egress, server: DroppingServer, method: str, drop: str) -> None:
    server.behave(kind(drop))
    failed = await failure(egress, server, method)
    assert server.hits == {method: 1}
    assert (failed.reason, failed.phase) == ("reset", "ambiguous")


@pytest.mark.parametrize("method", METHODS)
async def test_a_pooled_connection_that_drops_is_not_replaced_by_a_second_send(egress: Egress, server: DroppingServer, method: str) -> None:
    server.behave(answer({}), kind("drop_after"))
    await fetch(egress, server, "POST", "/first")
    failed = await failure(egress, server, method)
    assert server.connections == 1
    assert len(server.requests) == 2
    assert failed.phase == "ambiguous"


async def test_a_drop_before_reading_is_still_ambiguous_because_a_connection_was_there(egress: Egress, server: DroppingServer) -> None:
    server.behave(kind("drop_before"))
    failed = await failure(egress, server, "POST")
    assert server.hits == {}
    assert failed.phase == "ambiguous"


async def test_a_refused_connection_was_not_sent(egress: Egress, server: DroppingServer) -> None:
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        server.port = idle.getsockname()[1]
        failed = await failure(egress, server, "POST")
    assert (failed.reason, failed.phase) == ("connect", "not_sent")


async def test_a_failed_tls_handshake_was_not_sent(egress: Egress, server: DroppingServer) -> None:
    server.behave(kind("drop_before"))
    request = build_request("POST", f"https://127.0.0.1:{server.port}/", json_bytes=b"{}")
    with pytest.raises(EgressFailure) as raised:
        await egress.exchange(request, allow=server.allow, timeout_s=5)
    assert raised.value.phase == "not_sent"
    assert server.hits == {}


async def test_a_name_that_cannot_be_resolved_was_not_sent() -> None:
    def nowhere(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "unknown")

    failed = await refusal("http://nowhere.example/", nowhere)
    assert (failed.reason, failed.phase) == ("connect", "not_sent")


async def test_a_name_that_takes_too_long_was_not_sent(sockets: list[object]) -> None:
    released = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        released.wait(10)
        return []

    failed = await refusal("http://slow.example/", slow, timeout_s=0.05)
    released.set()
    assert (failed.reason, failed.phase) == ("timeout", "not_sent")
    assert sockets == []


@pytest.mark.mission("P4.1")
@pytest.mark.parametrize("name", ["hang", "drip_body", "drip_headers"])
async def test_one_wall_deadline_ends_a_hang_and_a_drip(egress: Egress, server: DroppingServer, name: str) -> None:
    server.behave(kind(name))
    failed = await failure(egress, server, "POST", timeout_s=0.2)
    assert (failed.reason, failed.phase) == ("timeout", "ambiguous")
    assert failed.status == (200 if name == "drip_body" else None)
    assert server.hits == {"POST": 1}


async def test_the_callers_cancellation_is_passed_on(egress: Egress, server: DroppingServer) -> None:
    server.behave(kind("hang"))
    task = asyncio.create_task(fetch(egress, server, "POST"))
    await server.read_one.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.mission("P10.2")
async def test_a_cookie_set_for_one_caller_is_never_sent_by_the_next(egress: Egress, server: DroppingServer) -> None:
    server.behave(answer({}, Set_Cookie="session=tenant-a; Path=/"))
    await fetch(egress, server)
    await fetch(egress, server)
    await fetch(egress, server, "POST")
    assert len(server.requests) == 3
    assert all("cookie" not in seen.headers for seen in server.requests)


async def test_a_redirect_is_returned_and_not_followed(egress: Egress, server: DroppingServer) -> None:
    server.behave(answer({}, 302, Location=f"{server.origin}/elsewhere"))
    assert (await fetch(egress, server)).status == 302
    assert len(server.requests) == 1


async def test_proxies_named_in_the_environment_are_not_used(
    egress: Egress, server: DroppingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with dropping_server() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.origin)
        assert (await fetch(egress, server)).status == 200
        assert proxy.connections == 0


async def test_the_answer_is_asked_for_unencoded_and_the_url_is_sent_as_written(egress: Egress, server: DroppingServer) -> None:
    await fetch(egress, server, path="/a%7E%41/%2e%2F?q=%7E+1")
    assert server.requests[0].target == "/a%7E%41/%2e%2F?q=%7E+1"
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_gzip_and_deflate_are_unpacked(egress: Egress, server: DroppingServer, encoding: str) -> None:
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    raw = b'{"a": 1}' * 1000
    server.behave(answer(body=packer.compress(raw) + packer.flush(), Content_Encoding=encoding))
    assert (await fetch(egress, server)).body == raw


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
async def test_other_encodings_are_refused(egress: Egress, server: DroppingServer, encoding: str) -> None:
    server.behave(answer({}, Content_Encoding=encoding))
    failed = await failure(egress, server)
    assert (failed.reason, failed.status) == ("encoding", 200)


async def test_a_broken_or_cut_off_gzip_is_a_failure(egress: Egress, server: DroppingServer) -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(b"abc" * 500) + packer.flush()
    for body in (b"not gzip at all", packed[:-9]):
        server.behave(answer(body=body, Content_Encoding="gzip"))
        assert (await failure(egress, server)).reason == "encoding"


BOMBS: list[Behaviour] = [gzip_bomb(64), kind("endless"), answer(body=b" " * (MAX_BYTES + 1))]


@pytest.mark.parametrize("bomb", BOMBS, ids=["gzip", "endless", "length"])
async def test_an_answer_beyond_one_mebibyte_is_cut(egress: Egress, server: DroppingServer, bomb: Behaviour) -> None:
    server.behave(bomb)
    failed = await failure(egress, server)
    assert (failed.reason, failed.phase, failed.status) == ("too_large", "ambiguous", 200)


async def test_an_answer_of_exactly_one_mebibyte_arrives_whole(egress: Egress, server: DroppingServer) -> None:
    packer = zlib.compressobj(wbits=31)
    body = b"x" * MAX_BYTES
    server.behave(answer(body=body), answer(body=packer.compress(body) + packer.flush(), Content_Encoding="gzip"))
    assert (await fetch(egress, server)).body == body
    assert (await fetch(egress, server)).body == body


async def test_a_fresh_exchange_has_a_connection_of_its_own(egress: Egress, server: DroppingServer) -> None:
    await fetch(egress, server)
    await fetch(egress, server)
    assert server.connections == 1
    await fetch(egress, server, "POST", fresh=True)
    await fetch(egress, server, "POST", fresh=True)
    assert server.connections == 3


async def test_a_pooled_connection_does_not_serve_another_allow_list(egress: Egress, server: DroppingServer, sockets: list[object]) -> None:
    await fetch(egress, server)
    made = len(sockets)
    assert (await failure(egress, server, allow=frozenset())).reason == "refused"
    assert (await failure(egress, server, allow=frozenset({f"127.0.0.1:{server.port + 1}"}))).reason == "refused"
    assert len(server.requests) == 1
    assert len(sockets) == made


# --- which addresses


async def refusal(
    url: str,
    lookup: object = None,
    *,
    allow: frozenset[str] = frozenset(),
    timeout_s: float = 5,
) -> EgressFailure:
    """The failure of one GET; names are looked up by the stub only."""
    egress = Egress(lookup=lookup or numeric_only)  # type: ignore[arg-type]
    try:
        with pytest.raises(EgressFailure) as raised:
            await egress.exchange(build_request("GET", url), allow=allow, timeout_s=timeout_s)
        return raised.value
    finally:
        await egress.aclose()


def numeric_only(host: str, port: int) -> list[str]:
    """The system's own reading of odd numbers, without asking any name server."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [str(entry[4][0]) for entry in found]


LITERALS = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "0",
    "127.1",
    "0x7f.1",
    "2130706433",
    "0x7f000001",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::808:808]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[ff02::1]",
    "[2001:db8::1]",
    "0x7f.0.0.1",
    "127.0.1",
    "10.1",
    "192.168.257",
    "2852039166",
    "0xa9fea9fe",
    "3232235777",
    "0.1.2.3",
    "169.254.170.2",
    "100.100.100.200",
    "198.51.100.1",
    "203.0.113.1",
    "233.252.0.1",
    "239.255.255.250",
    "[::ffff:10.0.0.1]",
    "[::ffff:c0a8:101]",
    "[0:0:0:0:0:0:0:1]",
    "[64:ff9b::c0a8:101]",
    "[2002:c0a8:101::]",
    "[fe80::a9fe:a9fe]",
    "[ff05::1:3]",
    "[100::1]",
    "[fd00:ec2::254]",
    "[::ffff:0:0]",
]


@pytest.mark.mission("P10.1")
@pytest.mark.parametrize("host", LITERALS)
async def test_a_literal_that_is_not_public_is_refused_before_a_socket_exists(
    host: str, server: DroppingServer, sockets: list[object]
) -> None:
    failed = await refusal(f"http://{host}:{server.port}/")
    assert (failed.reason, failed.phase) == ("refused", "not_sent")
    assert sockets == []
    assert server.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["93.184.216.34", "127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["fe80::1%lo"],
        ["not an address"],
    ],
)
async def test_one_bad_address_refuses_the_name_before_a_socket_exists(
    addresses: list[str], server: DroppingServer, sockets: list[object]
) -> None:
    failed = await refusal(f"http://desk.example:{server.port}/", lambda host, port: addresses)
    assert (failed.reason, failed.phase) == ("refused", "not_sent")
    assert sockets == []
    assert server.connections == 0


def test_the_corpus_of_refused_addresses_is_large() -> None:
    assert len(set(LITERALS)) >= 60


async def test_a_name_that_changes_its_mind_is_looked_up_once_and_connected_as_it_was_checked(
    server: DroppingServer, sockets: list[object]
) -> None:
    answers = iter([["127.0.0.1"], ["169.254.169.254"], ["10.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    egress, name = Egress(lookup=rebinding), f"desk.example:{server.port}"
    try:
        listed = await egress.exchange(build_request("GET", f"http://{name}/"), allow=frozenset({name}), timeout_s=5)
        assert (listed.status, asked, len(server.requests)) == (200, ["desk.example"], 1)
        made = len(sockets)
        with pytest.raises(EgressFailure, match="allowed"):  # without the listing, the second answer is refused
            await egress.exchange(build_request("GET", f"http://{name}/"), allow=frozenset(), timeout_s=5)
        assert len(sockets) == made and len(server.requests) == 1
    finally:
        await egress.aclose()


async def test_a_listed_name_may_be_private_and_only_on_its_own_port(server: DroppingServer, sockets: list[object]) -> None:
    egress = Egress(lookup=lambda host, port: ["127.0.0.1"])
    allow = frozenset({f"Desk.Example:{server.port}"})
    url = f"http://desk.example:{server.port}"
    try:
        assert (await egress.exchange(build_request("GET", url), allow=allow, timeout_s=5)).status == 200
        made = len(sockets)
        for other in (f"http://desk.example:{server.port + 1}/", f"http://other.example:{server.port}/"):
            with pytest.raises(EgressFailure, match="not allowed"):
                await egress.exchange(build_request("GET", other), allow=allow, timeout_s=5)
        with pytest.raises(EgressFailure, match="not an allowed address"):  # the name was listed, its address was not
            await egress.exchange(build_request("GET", server.origin), allow=allow, timeout_s=5)
        assert len(sockets) == made
        assert server.hits == {"GET": 1}
    finally:
        await egress.aclose()


@pytest.mark.parametrize("url", ["http://0177.0.0.1/", "http://[::1/", "http://a\nb/"])
def test_an_address_that_is_no_address_never_becomes_a_request(url: str) -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        build_request("GET", url)


@pytest.mark.parametrize("url", ["http://user:pass@127.0.0.1/", "ftp://127.0.0.1/", "file:///etc/passwd"])
async def test_user_names_in_urls_and_other_schemes_are_refused(url: str, sockets: list[object]) -> None:
    assert (await refusal(url, allow=frozenset({"127.0.0.1:80"}))).reason == "refused"
    assert sockets == []


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public_in_every_spelling(address: str) -> None:
    assert is_public(reached(address))


async def test_a_port_that_does_not_exist_is_an_ordinary_failure() -> None:
    failed = await refusal("http://127.0.0.1:99999/", allow=frozenset({"127.0.0.1:99999"}))
    assert failed.phase == "not_sent"


async def test_a_failure_never_quotes_the_headers(server: DroppingServer) -> None:
    egress = Egress()
    server.behave(kind("drop_after"))
    request = build_request("POST", server.origin, headers={"Authorization": "Bearer hush-hush"}, json_bytes=b"{}")
    with pytest.raises(EgressFailure) as raised:
        await egress.exchange(request, allow=server.allow, timeout_s=5)
    await egress.aclose()
    assert "hush" not in str(raised.value)
