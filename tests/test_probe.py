"""Reachability and MTU edges in real networks of namespaces."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from networks import Net, needs_root, overlay, switch
from test_packet import ipv4
from vxlab import packet
from vxlab.namespaces import in_netns
from vxlab.probe import Echo, Edge, EdgeState, Endpoint, edge, edges, ping_all

pytestmark = [pytest.mark.kernel]

SHORT = 0.3  # seconds; for probes that must not be answered

C1, C2, N1, N2 = "10.5.1.10", "10.5.2.10", "10.5.1.1", "10.5.2.1"


@pytest.fixture(scope="module")
def shared() -> Iterator[Net]:
    """The talk's overlay, for tests that leave it as it is."""
    with overlay() as net:
        yield net


def endpoint(net: Net, name: str) -> Endpoint:
    addresses = {"c1": C1, "c2": C2, "n1": N1, "n2": N2}
    return Endpoint(name, addresses[name], net.path(name))


def everyone(net: Net) -> list[Endpoint]:
    return [endpoint(net, name) for name in ("c1", "c2", "n1", "n2")]


def failures(echoes: dict[tuple[str, str], Echo]) -> dict[tuple[str, str], str]:
    return {pair: echo.error for pair, echo in echoes.items() if not echo.ok}


Answer = Callable[[bytes, int], list[bytes]]  # request, how many came before -> replies


@contextmanager
def responder(net: Net, answer: Answer, source: str = C2) -> Iterator[None]:
    """Answer the echo requests that reach c2 from here instead of from c2's kernel."""
    net.run("c2", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=1")
    stop_read, stop_write = os.pipe()

    def raw() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    ears = in_netns(net.path("c2"), raw)
    mouth = in_netns(net.path("c2"), raw)
    mouth.bind((source, 0))

    def serve() -> None:
        seen = 0
        while stop_read not in select.select([ears.fileno(), stop_read], [], [])[0]:
            data, (peer, _) = ears.recvfrom(65535)
            request = data[20:]
            if request[0] == packet.ICMP_ECHO:
                for reply in answer(request, seen):
                    mouth.sendto(reply, (peer, 0))
                seen += 1

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        os.write(stop_write, b"x")
        thread.join()
        for sock in (ears, mouth):
            sock.close()
        os.close(stop_read)
        os.close(stop_write)
        net.run("c2", "sysctl", "-qw", "net.ipv4.icmp_echo_ignore_all=0")


def echo_reply(request: bytes, *, seq: int = 0, ident: int = 0, token: int = 0) -> bytes:
    """The right reply to a request, or with a number xored into one of its parts."""
    message = bytearray(request)
    message[0] = packet.ICMP_ECHO_REPLY
    message[2:4] = bytes(2)
    message[5] ^= ident
    message[7] ^= seq
    message[8] ^= token
    message[2:4] = packet.checksum(bytes(message)).to_bytes(2, "big")
    return bytes(message)


@needs_root
def test_all_pairs_reach_each_other(shared: Net) -> None:
    """Containers and nodes, through the VXLAN and without: all answer, with time and TTL."""
    echoes = ping_all(everyone(shared), timeout=5)
    assert failures(echoes) == {}
    assert len(echoes) == 12
    assert echoes["c1", "c2"].ttl == 62
    assert echoes["c1", "n1"].ttl == 64
    assert [pair for pair, echo in echoes.items() if echo.rtt_us is None] == []


@needs_root
@pytest.mark.timeout(30)
def test_it_returns_when_all_have_answered(shared: Net) -> None:
    """The timeout is only for those who do not answer."""
    assert failures(ping_all(everyone(shared), timeout=3600)) == {}


@needs_root
def test_only_the_wanted_pairs_are_pinged(shared: Net) -> None:
    """In their order, each once; a mere destination needs no namespace."""
    gateway = Endpoint("gateway", N1, "")
    wanted = [("c1", "gateway"), ("c2", "c1"), ("c1", "gateway")]
    echoes = ping_all([*everyone(shared), gateway], wanted, timeout=5)
    assert list(echoes) == [("c1", "gateway"), ("c2", "c1")]
    assert failures(echoes) == {}


@needs_root
def test_one_cut_pair_is_reported_with_the_kernels_words() -> None:
    """c1 has no way to c2: its own kernel says so; c2's requests arrive but nothing returns."""
    with overlay() as net:
        net.ip("c1", f"route add unreachable {C2}")
        echoes = ping_all(everyone(net), timeout=SHORT)
    assert failures(echoes) == {
        ("c1", "c2"): "No route to host",
        ("c2", "c1"): "no answer within 0.3 s",
    }
    assert echoes["c1", "c2"].errno == errno.EHOSTUNREACH
    assert echoes["c2", "c1"].errno is None


@needs_root
def test_without_a_default_route_the_network_is_unreachable() -> None:
    """The talk's sixth step."""
    with overlay() as net:
        net.ip("c1", "route del default")
        echoes = ping_all(everyone(net), [("c1", "c2"), ("c1", "n1")], timeout=SHORT)
    assert failures(echoes) == {("c1", "c2"): "Network is unreachable"}


@needs_root
def test_a_routers_complaint_is_reported_with_its_address() -> None:
    """The node lost flannel's route; it tells the container."""
    with overlay() as net:
        net.ip("n1", "route del 10.5.2.0/24")
        echoes = ping_all(everyone(net), [("c1", "c2"), ("n1", "c2")], timeout=5)
    assert failures(echoes) == {
        ("c1", "c2"): "Destination Net Unreachable, says 10.5.1.1",
        ("n1", "c2"): "Network is unreachable",
    }
    assert echoes["c1", "c2"].router == N1


@needs_root
def test_a_routing_loop_is_reported() -> None:
    """Two nodes that send a packet back and forth until its TTL ends."""
    with overlay() as net:
        for me, peer in ((1, 2), (2, 1)):
            net.ip(f"n{me}", f"route add 10.6.0.0/24 via 10.5.{peer}.0 dev flannel.1 onlink")
        lost = Endpoint("lost", "10.6.0.1", "")
        echo = ping_all([endpoint(net, "c1"), lost], [("c1", "lost")], timeout=5)["c1", "lost"]
    # The TTL of 64 ends at one of the nodes, which answers with its address towards c1.
    assert echo.error == f"Time to live exceeded, says {echo.router}"
    assert echo.router in {N1, "10.5.2.0"}


@needs_root
def test_an_address_that_the_source_does_not_have(shared: Net) -> None:
    """A finding, not a failed measurement: the container lacks its address."""
    ghost = Endpoint("ghost", "10.5.1.99", shared.path("c1"))
    echoes = ping_all([ghost, endpoint(shared, "c2")], [("ghost", "c2")])
    assert echoes["ghost", "c2"] == Echo(
        False, error="Cannot assign requested address: 10.5.1.99", errno=errno.EADDRNOTAVAIL
    )


@needs_root
def test_a_source_whose_namespace_is_gone_is_not_measured(shared: Net) -> None:
    """The others are."""
    gone = Endpoint("gone", "10.5.1.98", "/proc/0/ns/net")
    pairs = [("gone", "c2"), ("c1", "c2")]
    echoes = ping_all([gone, *everyone(shared)], pairs, timeout=5)
    assert echoes["gone", "c2"] == Echo(
        False,
        error="cannot probe from /proc/0/ns/net: No such file or directory",
        errno=errno.ENOENT,
        measured=False,
    )
    assert echoes["c1", "c2"].ok


@needs_root
def test_two_endpoints_may_share_a_namespace() -> None:
    """Their answers are told apart; each uses its own source address."""
    with overlay() as net:
        net.ip("c1", "addr add 10.5.1.11/24 dev eth0")
        twins = [endpoint(net, "c1"), Endpoint("c1b", "10.5.1.11", net.path("c1"))]
        assert failures(ping_all([*twins, endpoint(net, "c2")], timeout=5)) == {}
        net.ip("n2", "route add unreachable 10.5.1.11")
        cut = failures(ping_all([*twins, endpoint(net, "c2")], timeout=SHORT))
    assert set(cut) == {("c1b", "c2"), ("c2", "c1b")}


@needs_root
@pytest.mark.parametrize("hosts", [50, 100])
def test_thousands_of_pairs_at_once_lose_nothing(hosts: int) -> None:
    """2,450 and 9,900 pairs, none of which is sent twice."""
    with switch(hosts) as net:
        ends = [Endpoint(f"h{i}", f"10.9.0.{i + 1}", net.path(f"h{i}")) for i in range(hosts)]
        echoes = ping_all(ends, retries=0, timeout=5)
    assert failures(echoes) == {}
    assert len(echoes) == hosts * (hosts - 1)


@needs_root
def test_dont_fragment(shared: Net) -> None:
    """1451 bytes go in two fragments, or not at all with the don't-fragment bit."""
    ends, pair = everyone(shared), ("c1", "c2")
    assert ping_all(ends, [pair], size=1423, timeout=5)[pair].ok
    refused = ping_all(ends, [pair], size=1423, df=True)[pair]
    assert refused == Echo(
        False, error="Message too long, mtu=1450", errno=errno.EMSGSIZE, mtu=1450
    )
    assert ping_all(ends, [pair], size=1422, df=True, timeout=5)[pair].ok


@needs_root
def test_a_lost_probe_is_sent_again(shared: Net) -> None:
    """Answered at the second attempt; without retries it is lost."""

    def second_only(request: bytes, before: int) -> list[bytes]:
        return [echo_reply(request)] if before % 2 else []

    pair = ("c1", "c2")
    with responder(shared, second_only):
        assert ping_all(everyone(shared), [pair], timeout=3, retries=1)[pair].ok
    with responder(shared, second_only):
        echo = ping_all(everyone(shared), [pair], timeout=SHORT, retries=0)[pair]
    assert echo == Echo(False, error="no answer within 0.3 s")


FORGERIES: dict[str, Answer] = {
    "another token": lambda request, _: [echo_reply(request, token=1)],
    "another sequence number": lambda request, _: [echo_reply(request, seq=1)],
    "another identifier": lambda request, _: [echo_reply(request, ident=1)],
    "a byte is missing": lambda request, _: [echo_reply(request[:-1])],
    "a broken checksum": lambda request, _: [echo_reply(request)[:-1] + b"\0"],
    "no data": lambda request, _: [echo_reply(request[:8] + b"\0")],
}


@needs_root
@pytest.mark.parametrize("forgery", FORGERIES)
def test_foreign_replies_do_not_count(shared: Net, forgery: str) -> None:
    """Something like an answer is no answer."""
    pair = ("c1", "c2")
    with responder(shared, FORGERIES[forgery]):
        echo = ping_all(everyone(shared), [pair], timeout=SHORT, retries=0)[pair]
    assert echo == Echo(False, error="no answer within 0.3 s")


@needs_root
def test_a_reply_from_somebody_else_does_not_count(shared: Net) -> None:
    """The right content from the wrong address; from the right one it counts."""
    pair = ("c1", "c2")
    shared.ip("c2", "addr add 10.5.2.77/24 dev eth0")
    try:
        results = []
        for source in ("10.5.2.77", C2):
            with responder(shared, lambda request, _: [echo_reply(request)], source):
                echo = ping_all(everyone(shared), [pair], timeout=SHORT, retries=0)[pair]
                results.append(echo.ok)
    finally:
        shared.ip("c2", "addr del 10.5.2.77/24 dev eth0")
    assert results == [False, True]


@needs_root
def test_a_duplicate_does_not_end_the_wait_for_others(shared: Net) -> None:
    """c1 gets its answer twice, n1 only at its second attempt."""

    def answer(request: bytes, before: int) -> list[bytes]:
        return [[echo_reply(request)] * 2, [], [echo_reply(request)]][before]

    pairs = [("c1", "c2"), ("n1", "c2")]
    with responder(shared, answer):
        echoes = ping_all(everyone(shared), pairs, timeout=3, retries=1)
    assert failures(echoes) == {}


@needs_root
def test_duplicates_and_old_replies_do_not_count_for_another_probe(shared: Net) -> None:
    """The first answer again and again: c2 answers c1, n1 gets c1's replies only."""
    first: list[bytes] = []

    def only_the_first(request: bytes, _: int) -> list[bytes]:
        first.append(echo_reply(request))
        return [first[0]] * 3

    pairs = [("c1", "c2"), ("n1", "c2")]
    with responder(shared, only_the_first):
        echoes = ping_all(everyone(shared), pairs, timeout=SHORT, retries=0)
        again = ping_all(everyone(shared), pairs, timeout=SHORT, retries=0)
    assert [echo.ok for echo in echoes.values()] == [True, False]
    assert [echo.ok for echo in again.values()] == [False, False]


def complaint(
    request: bytes, *, dst: str = C2, kind: int = 3, code: int = 1, quote: int = 548
) -> bytes:
    """An ICMP error about a request that went from c1 to `dst`; quotes so many bytes of it."""
    message = struct.pack("!BBHHH", kind, code, 0, 0, 0) + ipv4(request, 1, C1, dst)[: 20 + quote]
    return message[:2] + packet.checksum(message).to_bytes(2, "big") + message[4:]


COMPLAINTS: dict[str, tuple[Answer, str]] = {
    "host unreachable": (lambda r, _: [complaint(r)], "Destination Host Unreachable"),
    "a short quote": (lambda r, _: [complaint(r, quote=8)], "Destination Host Unreachable"),
    "an unnamed code": (lambda r, _: [complaint(r, code=14)], "Destination Unreachable, code 14"),
    "no MTU stated": (lambda r, _: [complaint(r, code=4)], "Frag needed and DF set"),
    "reassembly": (
        lambda r, _: [complaint(r, kind=11, code=1)],
        "Frag reassembly time exceeded",
    ),
    "parameter": (lambda r, _: [complaint(r, kind=12, code=0)], "ICMP type 12, code 0"),
    "a redirect is none": (lambda r, _: [complaint(r, kind=5)], ""),
    "about another host": (lambda r, _: [complaint(r, dst=N2)], ""),
    "about another host, short": (lambda r, _: [complaint(r, dst=N2, quote=8)], ""),
    "about another sequence number": (lambda r, _: [complaint(r[:7] + b"" + r[8:])], ""),
    "the same, short": (lambda r, _: [complaint(r[:7] + b"", quote=8)], ""),
    "about another identifier": (
        lambda r, _: [complaint(r[:4] + bytes([r[4] ^ 1]) + r[5:], quote=8)],
        "",
    ),
    "about another token": (lambda r, _: [complaint(r[:8] + bytes(8) + r[16:])], ""),
    "about a reply": (lambda r, _: [complaint(echo_reply(r))], ""),
    "no quote": (lambda r, _: [complaint(r, quote=-20)], ""),
    "half a quote": (lambda r, _: [complaint(r, quote=0)], ""),
}


@needs_root
@pytest.mark.parametrize("case", COMPLAINTS)
def test_complaints_count_when_they_quote_the_probe(shared: Net, case: str) -> None:
    """ICMP errors about this very probe settle it; those about others do not."""
    answer, words = COMPLAINTS[case]
    pair = ("c1", "c2")
    with responder(shared, answer):
        echo = ping_all(everyone(shared), [pair], timeout=SHORT, retries=0)[pair]
    if words:
        assert echo == Echo(False, error=f"{words}, says {C2}", router=C2)
    else:
        assert echo == Echo(False, error="no answer within 0.3 s")


@needs_root
def test_a_middle_that_fails_for_another_reason_is_not_measured() -> None:
    """The refusal of 1451 bytes says nothing about their size."""
    with overlay(container_mtu=1500) as net:

        def complain_about_large_ones(request: bytes, _: int) -> list[bytes]:
            large = len(request) + 20 > 1440
            return [complaint(request) if large else echo_reply(request)]

        with responder(net, complain_about_large_ones):
            result = edge(endpoint(net, "c1"), C2, 1440, timeout=5)
    assert (result.state, result.reason) == (
        EdgeState.NOT_MEASURED,
        f"1441 bytes: Destination Host Unreachable, says {C2}",
    )


@needs_root
def test_a_refusal_that_states_another_mtu_is_a_failed_edge() -> None:
    """1440 bytes pass and 1441 do not, yet the router claims 1300."""
    with overlay() as net:

        def wrong_mtu(request: bytes, _: int) -> list[bytes]:
            if len(request) + 20 <= 1440:
                return [echo_reply(request)]
            told = bytearray(complaint(request, code=4))
            told[2:4], told[6:8] = bytes(2), (1300).to_bytes(2, "big")
            told[2:4] = packet.checksum(bytes(told)).to_bytes(2, "big")
            return [bytes(told)]

        with responder(net, wrong_mtu):
            result = edge(endpoint(net, "c1"), C2, 1440, timeout=5)
    words = f"Frag needed and DF set, mtu=1300, says {C2}"
    assert (result.state, result.reason, result.stated_mtu) == (
        EdgeState.FAILED,
        f"1440 bytes pass, yet 1441 get: {words}",
        1300,
    )


@pytest.mark.parametrize("size", [7, 65508])
def test_an_impossible_size_is_refused(size: int) -> None:
    """Too small for the token, too large for IP."""
    with pytest.raises(ValueError, match="is not between 8 and 65507"):
        ping_all([], size=size)


def test_an_unknown_name_is_refused() -> None:
    """A pair must name endpoints."""
    with pytest.raises(KeyError):
        ping_all([], [("c1", "c2")])


def test_nobody_to_ping() -> None:
    """No endpoints, no pairs, no edges: nothing to do."""
    assert ping_all([]) == {}
    assert edges([]) == []


@needs_root
def test_the_edge_is_at_1450(shared: Net) -> None:
    """The talk's numbers: 1450 bytes pass, 1451 do not, 1450 pass again."""
    result = edge(endpoint(shared, "c1"), C2, 1450, timeout=5)
    assert (result.state, result.reason) == (EdgeState.PASSED, "")
    assert (result.stated_mtu, result.stated_by) == (1450, "")
    assert [probe.ok for probe in result.probes] == [True, False, True]
    assert result.probes[1].error == "Message too long, mtu=1450"


@needs_root
def test_a_smaller_mtu_than_the_edge_fails(shared: Net) -> None:
    """Somebody expects 1400: larger packets pass."""
    result = edge(endpoint(shared, "c1"), C2, 1400, timeout=5)
    assert (result.state, result.reason) == (EdgeState.FAILED, "1401 bytes pass too")


@needs_root
def test_many_edges_at_once_keep_their_order(shared: Net) -> None:
    """Each gets its own verdict."""
    questions = [
        Edge(endpoint(shared, "c1"), C2, 1450),
        Edge(endpoint(shared, "c1"), C2, 1449),
        Edge(endpoint(shared, "n2"), C1, 1450),
        Edge(Endpoint("gone", C1, "/proc/0/ns/net"), C2, 1450),
    ]
    results = edges(questions, timeout=5)
    assert [result.edge for result in results] == questions
    assert [result.state for result in results] == [
        EdgeState.PASSED,
        EdgeState.FAILED,
        EdgeState.PASSED,
        EdgeState.NOT_MEASURED,
    ]
    assert results[3].reason == (
        "the first packet of 1450 bytes did not come back: "
        "cannot probe from /proc/0/ns/net: No such file or directory"
    )


@needs_root
def test_a_veth_of_1500_lets_the_node_draw_the_edge() -> None:
    """The talk's fifth step: the container sends 1451 bytes, its node refuses to forward them."""
    with overlay(container_mtu=1500) as net:
        passed = edge(endpoint(net, "c1"), C2, 1450, timeout=5)
        failed = edge(endpoint(net, "c1"), C2, 1500, timeout=5)
    assert (passed.state, passed.reason) == (EdgeState.PASSED, "")
    assert (passed.stated_mtu, passed.stated_by) == (1450, N1)
    words = "Frag needed and DF set, mtu=1450, says 10.5.1.1"
    assert (failed.state, failed.reason) == (EdgeState.FAILED, f"1500 bytes: {words}")
    assert [probe.error for probe in failed.probes] == [words]


@needs_root
def test_outer_fragmentation_lets_too_large_packets_pass() -> None:
    """An overlay of 1500 on an underlay of 1500: the outer packet is cut up, unseen inside."""
    with overlay(mtu=1500, container_mtu=1500) as net:
        result = edge(endpoint(net, "c1"), C2, 1450, timeout=5)
    assert (result.state, result.reason) == (EdgeState.FAILED, "1451 bytes pass too")


@needs_root
def test_a_black_hole_is_a_failed_edge_or_not_measured() -> None:
    """As before, but the outer packet may not be cut up: it is dropped, and nobody says so."""
    with overlay(mtu=1500, container_mtu=1500, vxlan="df set") as net:
        hole = edge(endpoint(net, "c1"), C2, 1450, timeout=SHORT)
        first = edge(endpoint(net, "c1"), C2, 1500, timeout=SHORT)
    assert (hole.state, hole.reason) == (
        EdgeState.FAILED,
        "1451 bytes vanish without a word: a path MTU black hole",
    )
    assert (first.state, first.reason) == (
        EdgeState.NOT_MEASURED,
        "the first packet of 1500 bytes did not come back: no answer within 0.3 s",
    )


@needs_root
def test_with_the_peer_down_nothing_is_measured() -> None:
    """1451 bytes do not pass, but neither does anything else."""
    with overlay() as net:
        net.ip("c2", "link set eth0 down")
        result = edge(endpoint(net, "c1"), C2, 1450, timeout=SHORT)
    assert result.state == EdgeState.NOT_MEASURED
    assert result.stated_mtu is None
    assert len(result.probes) == 1


@needs_root
def test_a_peer_that_goes_away_in_between_is_not_measured(shared: Net) -> None:
    """It answers the first packet and not the last one."""

    def first_only(request: bytes, before: int) -> list[bytes]:
        return [] if before else [echo_reply(request)]

    with responder(shared, first_only):
        result = edge(endpoint(shared, "c1"), C2, 1450, timeout=SHORT)
    assert (result.state, result.reason) == (
        EdgeState.NOT_MEASURED,
        "the last packet of 1450 bytes did not come back: no answer within 0.3 s",
    )
    assert [probe.ok for probe in result.probes] == [True, False, False]


@needs_root
def test_an_outdated_cached_path_mtu_does_not_decide() -> None:
    """The container still remembers a bottleneck that is gone; the wire is measured."""
    with overlay() as net:
        net.ip("n1", "link set flannel.1 mtu 1300")
        narrow = edge(endpoint(net, "c1"), C2, 1300, timeout=5)
        net.ip("n1", "link set flannel.1 mtu 1450")
        remembered = net.run("c1", "ip", "route", "get", C2)
        wide = edge(endpoint(net, "c1"), C2, 1450, timeout=5)
    assert (narrow.state, narrow.stated_by) == (EdgeState.PASSED, N1)
    assert "mtu 1300" in remembered
    assert (wide.state, wide.reason) == (EdgeState.PASSED, "")
