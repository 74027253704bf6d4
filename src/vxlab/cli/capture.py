"""``vxlab capture``: packets at any hops at once, as lines or as one file for Wireshark."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from vxlab.cli import choose
from vxlab.cli.login import login
from vxlab.errors import OperationError, UsageError
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.engine.running import Running
    from vxlab.lab import Lab
    from vxlab.trace.capture import Captures, Capturing, Caught
    from vxlab.trace.capture_filter import Filter
    from vxlab.trace.capture_hosts import HostCaptures
    from vxlab.trace.capture_output import Output, Pump
    from vxlab.trace.hops import Hop

_CLOCKS = "; time stamps are by the clock of each hop's own host, and those are not compared"
_BEHIND = "vxlab.capture.behind"  # where the words behind -- are kept


class _Capture(click.Command):
    """A command that knows what stood behind ``--``; click itself only takes the mark away."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_BEHIND] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command("capture", cls=_Capture)
@click.argument(
    "words", metavar="WHERE... [FILTER]", nargs=-1, shell_complete=choose.complete_place
)
@click.option("-w", "file", metavar="FILE", help="Write pcapng; - for standard output.")
@click.option("-f", "--filter", "said", metavar="FILTER", help="The filter; all words are WHERE.")
@click.option("-c", "count", type=click.IntRange(1), metavar="N", help="End after N packets.")
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="End after S seconds."
)
@click.option("-e", "macs", is_flag=True, help="Show MAC addresses, too.")
@click.option("--outer", is_flag=True, help="Filter by outer headers only, not inside VXLAN.")
@click.option("--lab", help="Which lab; default: the only one.")
@click.pass_context
def command(
    ctx: click.Context,
    words: tuple[str, ...],
    file: str | None,
    said: str | None,
    count: int | None,
    seconds: float | None,
    macs: bool,
    outer: bool,
    lab: str | None,
) -> None:
    """Show the packets that pass some hops, or write them to one pcapng file.

    WHERE is a node (its underlay interface), a container (its vethNS), NODE:INTERFACE such as
    node01:flannel.1, or `all`. `node01:all` is all of a node's interfaces, `all:cbr0` one
    interface on every node, `switch` the cables between the nodes.

    FILTER is written as tcpdump's (man pcap-filter). It begins with the first word that is one of
    tcpdump's and no place, or behind `--`, or is given by -f. Names of containers and nodes in it
    stand for their addresses. On the underlay it is asked about the packets inside VXLAN, too.

    \b
      vxlab capture all icmp and host container01
      vxlab capture node01 node01:flannel.1 -c 4 -- udp or arp
      vxlab capture all -w talk.pcapng
      vxlab capture all -w - | wireshark -k -i -

    Ctrl-C ends it. What was lost, since nobody read it in time, is told at the end. On real hosts
    vxlab's own SSH connections are left out, and each host's packets have the time of its clock.
    """
    from vxlab.engine.running import Running, no_lab, stored_lab
    from vxlab.trace import hops
    from vxlab.trace.capture_output import Pump

    directory = choose.directory(lab)
    built = stored_lab(directory)
    if built is None:
        raise no_lab(directory)
    places, wanted = _told_apart(built, words, said, ctx.meta.get(_BEHIND))
    chosen = hops.parse(built, places)
    running = Running.attach(directory, login())
    try:
        filter_ = _filter(running, wanted, outer=outer)
        # Nothing that was wrong may cost an older capture: the file is opened at last.
        with _begun(running, chosen, filter_) as captures:
            with _opened(file) as output:
                if file is None:
                    shown = _lines(built, chosen, macs=macs)
                else:
                    output.put(_header(built, chosen, filter_.text))
                    shown = _block
                pump = Pump(captures, output, shown, count)
                end = _statistics if file is not None else None
                _run(captures, pump, output, seconds, end, _told_first(built, chosen))
            if captures.failure is not None:
                where = captures.failure.where
                text.tell(f"{where}: its last packets are missing, and what it lost is not known")
                raise captures.failure
            if not captures.running:
                raise OperationError("all interfaces are gone", hint="see `vxlab status`")
    finally:
        running.close()


def _told_apart(
    lab: Lab, words: Sequence[str], said: str | None, behind: Sequence[str] | None
) -> tuple[list[str], str]:
    """Where to capture, and the filter.

    Raises:
        UsageError: there are two filters, no place, or a word that may be neither.
    """
    from vxlab.trace import hops

    places, filters = list(words), [f for f in (said, " ".join(behind or ())) if f]
    if said is None and behind is None:
        at = next((i for i, word in enumerate(words) if not hops.is_place(lab, word)), len(words))
        places, rest = list(words[:at]), list(words[at:])
        if rest and not _begins_filter(rest[0]):
            problem = hops.unknown(lab, rest[0])
            problem.hint += "\na filter that begins so goes behind --, or after -f"
            raise problem
        filters = [" ".join(rest)]
    if len(filters) > 1:
        raise UsageError("there are two filters: one after -f, one behind --")
    if not places:
        names = [*(node.name for node in lab.nodes[:2]), *(c.name for c in lab.containers[:2])]
        raise UsageError("say where to capture", hint=f"such as {', '.join(names)} or all")
    return places, filters[0].strip() if filters else ""


def _begins_filter(word: str) -> bool:
    """Whether a filter may begin with a word: tcpdump's language, a number, a bracket, a !."""
    from vxlab.trace.capture_filter import WORDS

    first = word.split()[0] if word.strip() else "("
    return first[0] in "(!0123456789\\" or first.partition("[")[0].rstrip("(") in WORDS


@contextmanager
def _opened(file: str | None) -> Iterator[Output]:
    """Where the capture goes to.

    Raises:
        UsageError: the file cannot be written, or is a terminal, which shows no binary data.
    """
    from vxlab.trace.capture_output import Output

    if file is None:
        sys.stdout.flush()
        yield Output(1, "standard output")
        return
    if file == "-":
        fd, where = os.dup(1), "standard output"
    else:
        try:
            fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            words = os.strerror(error.errno or 0)
            raise UsageError("cannot write the file", where=file, detail=words) from None
        where = file
    try:
        if os.isatty(fd):
            raise UsageError(
                "a terminal shows no pcapng", hint="-w FILE, or -w - | wireshark -k -i -"
            )
        yield Output(fd, where)
    finally:
        os.close(fd)


def _told_first(lab: Lab, hops: Sequence[Hop]) -> str:
    names = ", ".join(hop.name for hop in hops[:3])
    more = " ..." if len(hops) > 3 else ""
    clocks = "; the hosts' clocks are not compared" if lab.remote else ""
    return f"capturing at {text.plural(len(hops), 'hop')}: {names}{more}{clocks}"


def _run(
    captures: Capturing,
    pump: Pump,
    output: Output,
    seconds: float | None,
    end: Callable[[Capturing], bytes] | None,
    first: str,
) -> None:
    """Capture until there is enough or somebody stops it, then sum up.

    Args:
        end: what is written last.
        first: what is told first; from then on signals end the capture as they should.
    """
    whole = False
    try:
        with _stopping(pump.stop):
            text.tell(first)
            pump.run(seconds)
        if end is not None:
            output.put(end(captures))
        output.finish()
        whole = True
    finally:
        _sum_up(captures, pump, whole=whole)


def _begun(running: Running, hops: Sequence[Hop], filter_: Filter) -> Captures | HostCaptures:
    """The captures, all of which run."""
    from functools import cache

    from vxlab.trace import bpf
    from vxlab.trace.capture import Captures
    from vxlab.trace.capture_begin import begin

    lab = running.site.lab
    compile_ = cache(bpf.compile)  # a few hops take the same program
    if lab.remote:
        return begin(running, hops, filter_, compile_, told=_told)
    programs = {hop: filter_.program(lab, hop, compile_) for hop in hops} if filter_.text else {}
    return Captures.begin(running, hops, programs, told=_told)


def _filter(running: Running, wanted: str, *, outer: bool) -> Filter:
    """The filter with addresses; the nodes are looked at if it names containers."""
    from vxlab.checks.encapsulation import udp_port
    from vxlab.steps.address import container_address
    from vxlab.steps.overlay import vxlan_ports
    from vxlab.trace.capture_filter import Filter, addresses

    lab = running.site.lab

    def look() -> dict[str, str]:
        states = running.states()
        found = {c.full_name: container_address(c, states[c.node]) for c in lab.containers}
        return {name: str(address.ip) for name, address in found.items() if address is not None}

    kind = lab.overlay.backend_type
    ports = {"vxlan": vxlan_ports(lab), "udp": {udp_port(lab)}}.get(kind, set())
    return Filter(addresses(lab, wanted, look), frozenset(ports), outer)


def _lines(lab: Lab, hops: Sequence[Hop], *, macs: bool) -> Callable[[Caught], bytes]:
    from vxlab.checks.encapsulation import udp_port
    from vxlab.report.packets import Lines
    from vxlab.steps.overlay import vxlan_ports
    from vxlab.trace.hops import without_ethernet

    lines = Lines(
        [hop.name for hop in hops],
        vxlan_ports=vxlan_ports(lab),
        ip_port=udp_port(lab) if lab.overlay.backend_type == "udp" else None,
        l3=[without_ethernet(lab, hop) for hop in hops],
        macs=macs,
        colour=text.coloured(sys.stdout),
    )
    return lambda caught: lines.text(caught.number, caught.frame).encode()


def _header(lab: Lab, hops: Sequence[Hop], filter_: str) -> bytes:
    from vxlab import __version__
    from vxlab.trace import pcapng
    from vxlab.trace.bpf import SNAPLEN
    from vxlab.trace.hops import described, without_ethernet

    interfaces = [
        pcapng.Interface(
            hop.name,
            described(lab, hop),
            pcapng.RAW_IP if without_ethernet(lab, hop) else pcapng.ETHERNET,
            snaplen=SNAPLEN,
            filter=filter_,
        )
        for hop in hops
    ]
    system = os.uname()
    return pcapng.header(
        interfaces,
        application=f"vxlab {__version__}",
        os=f"{system.sysname} {system.release}",
        comment=f"the lab {lab.name!r}{_CLOCKS if lab.remote else ''}",
    )


def _block(caught: Caught) -> bytes:
    from vxlab.trace import pcapng

    return pcapng.packet(caught.number, caught.frame)


def _statistics(captures: Capturing) -> bytes:
    import time

    from vxlab.trace import pcapng

    ended = time.time_ns()
    rows = zip(captures.received, captures.dropped, strict=True)
    return b"".join(
        pcapng.statistics(i, captures.begun, ended, received + dropped, dropped)
        for i, (received, dropped) in enumerate(rows)
    )


@contextmanager
def _stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM are how a capture ends; a second one, while it is ending, breaks it."""

    def ask(signum: int, frame: FrameType | None) -> None:
        stop()
        put_back()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        put_back()


def _told(hop: Hop, words: str) -> None:
    text.tell(f"{hop.name} {words}")


def _sum_up(captures: Capturing, pump: Pump, *, whole: bool) -> None:
    """What was captured, hop by hop; of a capture that broke off only what was lost."""
    from vxlab.report.packets import summary

    dropped = captures.dropped
    if not whole and not any(dropped):
        return
    for line in summary([hop.name for hop in captures.hops], pump.written, dropped):
        text.tell(line)
    if any(dropped):
        lost = text.style("packets were lost", "red", sys.stderr)
        text.tell(f"{lost}: they came faster than they were read; narrow the filter, or use -w")
