"""Beginning captures on real hosts: what is there, and which connections are our own."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from vxlab.engine.running import Running
from vxlab.errors import MissingError, OperationError, UsageError, VxlabError
from vxlab.hostprobe.links import Connection, Links, linking, read_linking
from vxlab.hostprobe.taps import Tap, Taps, command
from vxlab.nodes import down
from vxlab.nodes.remote import together
from vxlab.trace.capture import no_interface, ranks
from vxlab.trace.capture_filter import Compiler, Filter
from vxlab.trace.capture_hosts import Host, HostCaptures, Told
from vxlab.trace.capture_sieve import Sieve
from vxlab.trace.hops import Hop, without_ethernet

_BEGIN = 10.0  # seconds until the captures have to run


def begin(
    running: Running,
    hops: Sequence[Hop],
    filter_: Filter,
    compile_: Compiler,
    *,
    told: Told = lambda hop, words: None,
) -> HostCaptures:
    """Start capturing at all hops at once; when this returns, all of them run.

    The lab's own SSH connections are left out: each packet of such a capture would make more.

    Args:
        running: a lab on real hosts, connected to them.
        hops: where, each once.
        filter_: what is wanted.
        compile_: makes the filter's programs.
        told: see `HostCaptures`.

    Raises:
        UsageError: there is no such interface, or the filter does not compile.
        MissingError: a host has no tcpdump, or this machine where its compiler is needed.
        OperationError: a container does not run, or a capture cannot be begun. None is left.
        UnreachableError: the connection to a host was lost.
    """
    return HostCaptures(hops, _Beginning(running, hops, filter_, compile_).run(), told)


def ours(hosts: Mapping[str, Links]) -> list[Connection]:
    """The SSH connections of a lab, as its hosts see them.

    A node may be reached through another one. There sshd has the connection to it, and another one
    that it came by, in one process.

    Args:
        hosts: what each node said.

    Raises:
        OperationError: a node does not know which connection we came by.
    """
    known = {_came_by(name, links) for name, links in hosts.items()}
    processes = [sockets for links in hosts.values() for sockets in links.sockets.values()]
    before: set[Connection] = set()
    while before != known:
        before = set(known)
        for sockets in processes:
            known |= sockets if sockets & known else set()
    return sorted(known, key=sorted)


class _Beginning:
    def __init__(
        self, running: Running, hops: Sequence[Hop], filter_: Filter, compile_: Compiler
    ) -> None:
        self._running, self._lab = running, running.site.lab
        self._hops, self._filter, self._compile = hops, filter_, compile_
        self._numbers: dict[str, list[int]] = {}  # hops by host
        for number, hop in enumerate(hops):
            self._numbers.setdefault(hop.node, []).append(number)

    def run(self) -> list[Host]:
        with suppress(MissingError):  # a host's own tcpdump may do
            for hop in self._hops if self._filter.text else ():
                self._filter.program(self._lab, hop, self._compile)
        with ThreadPoolExecutor(len(self._running.nodes)) as pool:
            looked = dict(
                zip(self._running.nodes, pool.map(self._look, self._running.nodes), strict=True)
            )
            for hop in self._hops:
                _require(hop, looked[hop.node])
            known = ours(looked)
            sieves = self._sieves()
            begun = list(pool.map(lambda name: self._begin(name, known, sieves), self._numbers))
            hosts = [host for host in begun if isinstance(host, Host)]
            failed = [error for error in begun if isinstance(error, VxlabError)]
            failed += list(filter(None, pool.map(self._failed, hosts)))
            if failed:
                list(pool.map(lambda host: host.taps.stop(), hosts))
                for sieve in sieves.values():
                    sieve.close()
                raise together(failed)
        return hosts

    def _look(self, name: str) -> Links:
        """Also at hosts where nothing is captured: a connection may pass through another host."""
        wanted = {self._hops[i].container for i in self._numbers.get(name, [])} - {""}
        program = linking(self._running.site.busybox, sorted(wanted))
        return read_linking(self._running.hosts[name].script(program))

    def _sieves(self) -> dict[int, Sieve]:
        """Where the filter is asked about packets inside others, which no host's tcpdump can."""
        return {
            number: Sieve(self._filter.program(self._lab, hop, self._compile))
            for number, hop in enumerate(self._hops)
            if self._filter.inside(self._lab, hop)
        }

    def _begin(
        self, name: str, known: Sequence[Connection], sieves: Mapping[int, Sieve]
    ) -> Host | VxlabError:
        numbers, site = self._numbers[name], self._running.site
        taps = [
            Tap(
                hop.interface,
                hop.container,
                without(known, self._filter.expression(self._lab, hop)),
                l3=without_ethernet(self._lab, hop),
            )
            for hop in (self._hops[i] for i in numbers)
        ]
        argv = command(taps, site.busybox, shlex.split(site.tcpdump))
        try:
            capture = Taps(self._running.hosts[name].stream(argv, stdin=True), taps)
        except VxlabError as error:
            return error
        chosen = {i: sieves[i] for i in numbers if i in sieves}
        return Host(name, capture, numbers, ranks(self._hops), chosen)

    def _failed(self, host: Host) -> VxlabError | None:
        """Why not all of a host's captures run."""
        runs = host.taps.ready(_BEGIN)
        if host.taps.lost is not None:
            return host.taps.lost
        for tap, number in enumerate(host.numbers):
            if host.taps.ended(tap):
                return _error(self._hops[number], host.taps.error(tap))
        if not runs:
            what = f"the captures do not run within {_BEGIN:g} s"
            return OperationError(what, where=host.name)
        return None


def _require(hop: Hop, links: Links) -> None:
    if hop.container not in links.names:
        raise down(hop.place, hop.node)
    names = links.names[hop.container]
    if hop.interface not in names:
        raise no_interface(hop, names)


def _came_by(node: str, links: Links) -> Connection:
    if links.came_by is None:
        raise OperationError(
            "cannot tell which SSH connection is ours, to leave it out of captures",
            where=node,
            hint=f"`vxlab exec {node} -- tcpdump -i INTERFACE FILTER` captures there",
        )
    return links.came_by


def _error(hop: Hop, words: str) -> VxlabError:
    if "no tcpdump" in words:
        hint = "install tcpdump there"
        return MissingError("there is no tcpdump on this host", where=hop.node, hint=hint)
    if "syntax error" in words or "expression rejects" in words:
        return UsageError("the filter does not compile", where=hop.node, detail=words)
    return OperationError(f"cannot capture at {hop.name}", where=hop.node, detail=words)


def without(connections: Iterable[Connection], expression: str) -> str:
    """A filter that takes nothing of some TCP connections, and else what another one takes."""
    ways = [f"({way})" for each in connections for way in _ways(each)]
    both = [f"not (tcp and ({' or '.join(ways)}))" if ways else ""]
    both += [f"({expression})" if expression else ""]
    return " and ".join(filter(None, both))


def _ways(connection: Connection) -> list[str]:
    """Both directions. Both ends of a connection to oneself may look the same."""
    (a, p), (b, q) = sorted(connection) * 2 if len(connection) == 1 else sorted(connection)
    return [
        f"src host {src} and src port {sport} and dst host {dst} and dst port {dport}"
        for src, sport, dst, dport in ((a, p, b, q), (b, q, a, p))
    ]
