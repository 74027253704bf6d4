"""``vxlab filter``: the talk's hexadecimal filter for an address, down to its bytecode."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Literal, NoReturn

import click

from vxlab.cli import choose
from vxlab.errors import MissingError, OperationError, UsageError
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.journal import LabDirectory
    from vxlab.nodes import Node
    from vxlab.steps.site import Site
    from vxlab.trace.bpfexplain import Explained
    from vxlab.trace.bpfrun import Printer
    from vxlab.trace.talkfilter import End, TalkFilter, Wire


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line asks for."""

    port: int | None
    backend: str | None
    outer: Literal[4, 6]
    vlan: int | None
    count: int | None


def _vlan(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None or value == "any":
        return None if value is None else 0
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value) <= 4094:
        raise UsageError(f"{value!r} is no VLAN id", hint="1 to 4094, or `any`")
    return int(value)


@click.command("filter")
@click.argument("address", shell_complete=choose.complete_place)
@click.option("--port", type=click.IntRange(1, 65535), help="UDP port of the outer packets.")
@click.option("--src", "src", is_flag=True, help="Only packets from ADDRESS.")
@click.option("--dst", "dst", is_flag=True, help="Only packets to ADDRESS.")
@click.option(
    "--backend",
    type=click.Choice(["vxlan", "udp", "host-gw"]),
    help="How packets travel; host-gw: as they are. By default as in the lab.",
)
@click.option("--outer-ipv6", is_flag=True, help="The outer packets are IPv6.")
@click.option(
    "--vlan",
    metavar="ID",
    callback=_vlan,
    help="The underlay's frames have this VLAN tag (`any`: some tag).",
)
@click.option("--lab", shell_complete=choose.complete_lab, help="Which lab (file or name).")
@click.option("--run", "run", metavar="NODE", help="Run it in NODE, until Ctrl-C.")
@click.option("-c", "count", type=click.IntRange(min=1), help="With --run: end after N packets.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(
    address: str,
    port: int | None,
    src: bool,
    dst: bool,
    backend: str | None,
    outer_ipv6: bool,
    vlan: int | None,
    lab: str | None,
    run: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Print the tcpdump filter that finds ADDRESS inside the underlay's packets, and why it does.

    ADDRESS is a container's address, or a node or container of the lab that is up. The offsets are
    those of the lab's backend; without a lab, the talk's.
    """
    if run and as_json:
        raise UsageError("--run prints packets, not JSON", hint="leave one of the two out")
    if count and not run:
        raise UsageError("-c goes with --run", hint="name a node: --run NODE")
    asked = _Asked(port, backend, 6 if outer_ipv6 else 4, vlan, count)
    directory, site = _site(lab)
    where = _where(site, address)
    target = _target(site, run) if run else ""
    wanted = [name for name in dict.fromkeys((where, target)) if name]
    printer = _printer(site, asked) if target and site else None
    nodes: Mapping[str, Node] = {}
    try:
        nodes = _machines(directory, site, wanted) if wanted and site else {}
        made, notes = _made(address, where, nodes, site, asked, _ends(src, dst))
        interface = _interface(site, target or where)
        if target and site:
            _run(site, nodes[target], made, interface, count, printer)
    finally:
        for node in nodes.values():
            node.close()
        if printer is not None:
            printer.close()
    _answer(made, notes, interface, address, site, as_json)


def _printer(site: Site, asked: _Asked) -> Printer | None:
    """What prints packets outside of the lab's world; only an ordinary user needs it."""
    from vxlab.trace import bpfrun

    return bpfrun.Printer(asked.count) if os.geteuid() and not site.lab.remote else None


def _made(
    address: str,
    where: str,
    nodes: Mapping[str, Node],
    site: Site | None,
    asked: _Asked,
    ends: tuple[End, ...],
) -> tuple[TalkFilter, list[str]]:
    """The filter, and what one has to know to use it."""
    from vxlab.trace.talkfilter import TalkFilter

    found, said = _resolved(site, address, nodes[where]) if where and site else (address, "")
    made = TalkFilter(_parsed(found), _wire(site, asked), ends)
    return made, [*([said] if said else []), *_notes(site, made, asked)]


def _answer(
    made: TalkFilter,
    notes: list[str],
    interface: str,
    address: str,
    site: Site | None,
    as_json: bool,
) -> None:
    from vxlab.report import filtering

    program, missing = _compiled(made)
    answer = filtering.Answer(made, notes, interface, program, missing)
    if as_json:
        text.dump(filtering.as_json(answer, address, site.lab.name if site else None))
    else:
        filtering.show(answer)


def _ends(src: bool, dst: bool) -> tuple[End, ...]:
    return ("src", "dst") if src == dst else ("src",) if src else ("dst",)


# --- the lab --------------------------------------------------------------------------------------


def _site(lab: str | None) -> tuple[LabDirectory, Site | None]:
    """The lab as it was built; None if there is none and none was asked for."""
    from vxlab.engine.running import no_lab, stored_site

    directory = choose.directory(lab)
    site = stored_site(directory) if directory.exists() else None
    if site is None and lab is not None:
        raise no_lab(directory)
    return directory, site


def _where(site: Site | None, word: str) -> str:
    """The node that knows the address that a word stands for; empty for an address itself."""
    from vxlab.cli.where import find

    if _is_address(word):
        return ""
    if site is None:
        raise UsageError(
            f"{word!r} is no IP address, and there is no lab with such a node or container",
            hint="name an address such as 10.42.1.7, or build a lab with `vxlab up`",
        )
    return _node(site, word, find(site.lab, word)[0])


def _target(site: Site | None, word: str) -> str:
    from vxlab.cli.where import find

    if site is None:
        raise UsageError("--run needs a lab that is up", hint="`vxlab up` builds one")
    node, container = find(site.lab, word)
    if container:
        raise UsageError(
            f"{word} is a container; the filter is for the underlay, which only nodes have",
            hint=f"--run {node}",
        )
    return _node(site, word, node)


def _node(site: Site, word: str, node: str) -> str:
    if node not in {each.name for each in site.lab.nodes}:
        raise UsageError(f"{word} is no node of the lab and has no address in the overlay")
    return node


def _machines(directory: LabDirectory, site: Site, names: Sequence[str]) -> dict[str, Node]:
    """The nodes, entered or connected to."""
    from vxlab.cli.login import login
    from vxlab.engine.running import Running
    from vxlab.nodes.remote import connected

    if site.lab.remote:
        return dict(connected(site.lab.name, {n: site.lab.node(n).ssh for n in names}, login()))
    running = Running.attach(directory, login())
    for name in names:
        if not running.nodes[name].running():
            raise OperationError(
                f"{name} does not run", where=name, hint="run `vxlab up` to repair it"
            )
    return {name: running.nodes[name] for name in names}


def _resolved(site: Site, word: str, node: Node) -> tuple[str, str]:
    """A container's address, or the one that a node itself has in the overlay; and a line on it."""
    from vxlab.cli.where import find
    from vxlab.steps import overlay
    from vxlab.steps.address import container_address

    state = node.snapshot()
    name, short = find(site.lab, word)
    if short:
        container = next(c for c in site.lab.node(name).containers if c.name == short)
        found = container_address(container, state)
        if found is None:
            raise OperationError(
                f"{word} has no address: flannel gave {name} no subnet",
                where=name,
                hint="run `vxlab up` to repair it",
            )
        return str(found.ip), f"{container.full_name} has {found.ip}"
    device = overlay.device(site.lab)
    link = state.net.links.get(device)
    if not device or site.lab.overlay.direct_routing:
        own = str(site.lab.node(name).address.ip)
        return own, f"{name} has {own} on the underlay; its own packets leave as they are"
    if link is None or not link.addresses:
        raise OperationError(
            f"{name} has no address in the overlay: {device} is missing",
            where=name,
            hint="run `vxlab up` to repair it",
        )
    own = link.addresses[0].partition("/")[0]
    return own, f"{name} itself has {own} in the overlay, on {device}"


def _wire(site: Site | None, asked: _Asked) -> Wire:
    """How the lab's packets look on the underlay, unless the command line says otherwise."""
    from vxlab.checks.encapsulation import udp_port
    from vxlab.trace.talkfilter import wire_of

    backend, port = asked.backend or "vxlan", asked.port
    if site is not None and asked.backend in (None, site.lab.overlay.backend_type):
        overlay = site.lab.overlay
        backend = asked.backend or overlay.backend_type
        if overlay.direct_routing and asked.backend is None:
            backend = "host-gw"
        elif port is None and backend != "host-gw":
            port = udp_port(site.lab) if backend == "udp" else overlay.port
    return wire_of(backend, port=port, outer=asked.outer, vlan=asked.vlan)


def _interface(site: Site | None, name: str) -> str:
    if site is None:
        return "eth0"
    lab = site.lab
    return lab.nic(lab.node(name or lab.nodes[0].name)) or "eth0"


def _notes(site: Site | None, made: TalkFilter, asked: _Asked) -> list[str]:
    """What of the lab one has to know to use the filter."""
    if site is None:
        return ["without a lab, this is for the talk's: eth0 stands for your underlay interface"]
    overlay, notes = site.lab.overlay, []
    if made.address.version == 4 and made.address not in overlay.network:
        name = site.lab.name
        notes.append(f"{made.address} is not in {overlay.network}, the overlay of the lab {name!r}")
    if overlay.direct_routing and asked.backend is None:
        words = "DirectRouting: packets travel as they are between nodes in one network; "
        notes.append(f"{words}between others in VXLAN, for which there is --backend vxlan")
    return notes


def _is_address(word: str) -> bool:
    try:
        ip_address(word.partition("%")[0].partition("/")[0])
    except ValueError:
        return False
    return True


def _parsed(word: str) -> IPv4Address | IPv6Address:
    if "/" in word or "%" in word:
        raise UsageError(
            f"{word!r} is more than an address", hint="no prefix length and no zone, please"
        )
    return ip_address(word)


# --- running it and compiling it ----------------------------------------------------------------


def _run(
    site: Site,
    node: Node,
    made: TalkFilter,
    interface: str,
    count: int | None,
    printer: Printer | None,
) -> NoReturn:
    """Capture with the filter in a node until Ctrl-C; ends this process with tcpdump's exit code.

    Args:
        printer: prints what is captured, for an ordinary user (`bpfrun.Printer`); or None.
    """
    from vxlab.nodes.local import LocalNode
    from vxlab.nodes.remote import RemoteNode
    from vxlab.trace import bpfrun

    text.tell(f'{node.name}: tcpdump -n -i {interface} "{made.expression}"')
    if isinstance(node, RemoteNode):
        sys.exit(bpfrun.on_host(node, site.tcpdump, interface, made.expression, count))
    assert isinstance(node, LocalNode)  # noqa: S101
    if printer is None:
        bpfrun.become(node, interface, made.expression, count)
    netns, tagged = f"{node.proc}/ns/net", made.wire.vlan is not None
    captured, lost = printer.run(netns, interface, made.expression, vlan=tagged)
    printer.close()
    done = "looked at" if tagged else "captured"
    text.tell(f"{text.plural(captured, 'packet')} {done}")
    text.tell(f"{text.plural(lost, 'packet')} dropped by kernel")
    sys.exit(0)


def _compiled(made: TalkFilter) -> tuple[list[Explained], str]:
    """The bytecode, explained; without tcpdump none, and the reason."""
    from vxlab.trace import bpf

    try:
        program = bpf.compile(made.expression)
    except MissingError as error:
        return [], f"{error.message} ({error.hint})"
    return bpf.explain(program, made.inside), ""
