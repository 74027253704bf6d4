"""``vxlab trace``: one packet's journey through every hop, there and back."""

from __future__ import annotations

import shlex
import sys
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vxlab.cli import choose
from vxlab.cli.login import login
from vxlab.errors import UsageError
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.lab import Container, Lab
    from vxlab.trace.journey import Protocol

_EXIT = {True: 0, False: 1, None: 2}

#: What TO means the source's own gateway by.
_GATEWAY = "gateway"


@click.command("trace")
@click.argument("source", metavar="FROM", shell_complete=choose.complete_place)
@click.argument("target", metavar="TO", shell_complete=choose.complete_place)
@click.option("--lab", help="Which lab; default: the only one.")
@click.option("--tcp", type=click.IntRange(1, 65535), metavar="PORT", help="Send TCP SYNs.")
@click.option("--udp", type=click.IntRange(1, 65535), metavar="PORT", help="Send UDP datagrams.")
@click.option("--size", type=click.IntRange(8, 65507), help="Bytes of data, as ping -s (56).")
@click.option("--count", type=click.IntRange(1, 10_000), default=1, help="How many probes (1).")
@click.option("--df", is_flag=True, help="Set the don't-fragment bit.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.01, 60),
    default=1.0,
    help="Seconds to wait for the last answer (1).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the journeys as JSON.")
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page that shows the packet moving, too.",
)
@click.option(
    "--pcap",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write every hop's packets to a pcapng file, too.",
)
def command(
    source: str,
    target: str,
    lab: str | None,
    tcp: int | None,
    udp: int | None,
    size: int | None,
    as_json: bool,
    html: Path | None,
    pcap: Path | None,
    **rest: Any,
) -> None:
    """Follow a packet FROM a container TO a container, a node, an address or the `gateway`.

    Captures at every hop at once, and shows where the packet came by, when, what changed in its
    headers, and which route, neighbour entry and FDB entry sent it there; the same for its answer.

    The times are the kernel's. It stamps a packet once as it comes in, so that the hops right
    behind show +0.0. Real hosts' clocks are not compared: there each host's times begin with its
    first sight. Lengths are those of the IP packet, which has to fit the MTU.

    Exit code 0: packet and answer arrived. 1: lost, and where. 2: the captures lost frames, so that
    nobody knows.
    """
    from vxlab.engine.running import Running
    from vxlab.report import journey as report
    from vxlab.trace.tracing import Question, trace

    if tcp and udp:
        raise UsageError("--tcp and --udp do not go together")
    if tcp and size:
        raise UsageError("--size does not go with --tcp", hint="a SYN carries no data")
    directory = choose.directory(lab)
    running = Running.attach(directory, login())
    try:
        built = running.site.lab
        protocol: Protocol = "tcp" if tcp else "udp" if udp else "icmp"
        question = Question(
            _container(built, source),
            **_target(built, target),
            protocol=protocol,
            port=tcp or udp or 0,
            size=0 if tcp else size or 56,
            **rest,
        )
        traced = trace(running, question, text.doing)
    finally:
        text.doing("")
        running.close()
    if pcap is not None:
        report.write_pcap(pcap, traced)
    if html is not None:
        from vxlab.report import page

        page.write(html, traced, built, command=shlex.join(["vxlab", *sys.argv[1:]]))
    if as_json:
        text.dump(report.as_json(traced))
    else:
        report.show(traced)
    sys.exit(_EXIT[traced.ok])


def _container(lab: Lab, word: str) -> Container:
    """The container that the packet leaves."""
    from vxlab.cli.where import find

    node, container = find(lab, word)
    if not container:
        names = (
            ", ".join(c.full_name for c in lab.node(node).containers) if node != "switch" else ""
        )
        raise UsageError(
            f"{word!r} is no container, and packets are sent from containers",
            hint=f"{node} has {names}" if names else "`vxlab status` shows the containers",
        )
    return next(c for c in lab.node(node).containers if c.name == container)


def _target(lab: Lab, word: str) -> dict[str, Any]:
    """What a word means as a target, as the question's fields."""
    from vxlab.cli.where import find
    from vxlab.trace.why import Place

    if word == _GATEWAY:
        return {"target": word}
    try:
        return {"target": word, "address": str(IPv4Address(word))}
    except AddressValueError:
        pass
    node, container = find(lab, word)
    if node == "switch":
        raise UsageError("the switch has no address", hint="name a node, container or address")
    return {"target": word, "place": Place(node, container)}
