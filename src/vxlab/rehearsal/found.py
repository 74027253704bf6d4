"""What nobody knows before the lab runs, what stands for it in a plan, and how a shell finds it.

The steps plan with addresses, so they are given some that cannot occur: a free subnet of the
overlay network for the one that flannel will choose, 0.0.0.1 for a host's unknown address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from vxlab.lab import UNKNOWN, Container, Lab, Node
from vxlab.rehearsal.command import Command, typed
from vxlab.state import SUBNET_ENV, State, SubnetEnv
from vxlab.steps.address import container_address
from vxlab.steps.site import SWITCH, Site, States

_NIC = "NIC-of-"
#: Above every MTU, port and VNI.
_MTU = 10**9

SOURCE = typed(f". {SUBNET_ENV}", "what flannel gave this node: FLANNEL_SUBNET, FLANNEL_MTU")


@dataclass(frozen=True, slots=True)
class Found:
    """A text in a plan that stands for a value.

    `shell` is the value as the shell writes it, `how` the command after which it does so, if it
    takes one.
    """

    stands: str
    shell: str
    how: Command | None = None


def variable(name: str) -> str:
    """A node's name as a part of a shell variable's: node-1 becomes NODE_1."""
    return re.sub(r"\W", "_", name).upper()


def numbered(word: str, node: Node, name: str) -> str:
    """PID for a node's first container, PID2 for its second, as with vethlocal and vethlocal2."""
    place = [c.name for c in node.containers].index(name)
    return word if place == 0 else f"{word}{place + 1}"


# --- the lab ------------------------------------------------------------------------------------


def supposed(site: Site) -> Site:
    """The site with something that stands for every NIC, address and MTU that is not known."""
    lab = site.lab
    nodes = []
    for index, node in enumerate(lab.nodes, 1):
        if node.address == UNKNOWN:
            node = replace(node, address=IPv4Interface(IPv4Address(index)))
        if not lab.nic(node):
            node = replace(node, interface=f"{_NIC}{node.name}")
        nodes.append(node)
    mtu = lab.underlay.mtu or _MTU
    return replace(
        site, lab=replace(lab, nodes=tuple(nodes), underlay=replace(lab.underlay, mtu=mtu))
    )


def supposed_states(lab: Lab, states: States) -> dict[str, State]:
    """The nodes with a lease each: the real one, the pinned one, or one that stands for it."""
    free = _free(lab)

    def leased(node: Node) -> State:
        state = states.get(node.name, State())
        if state.subnet_env is not None:
            return state
        subnet = node.subnet or free
        gateway = IPv4Interface((subnet[1], subnet.prefixlen))
        return replace(state, subnet_env=SubnetEnv(lab.overlay.network, gateway, lab.overlay_mtu))

    return {**states, **{node.name: leased(node) for node in lab.nodes}}


def _free(lab: Lab) -> IPv4Network:
    """A subnet that the lab file has not given to any node."""
    pinned = {node.subnet for node in lab.nodes}
    every = lab.overlay.network.subnets(new_prefix=lab.overlay.subnet_length)
    return next((subnet for subnet in every if subnet not in pinned), lab.overlay.network)


# --- what is found on a node --------------------------------------------------------------------


def found(lab: Lab, here: str, states: States, known: bool) -> list[Found]:
    """All that may stand for a value in what is typed on a node.

    Args:
        lab: the supposed lab.
        here: the node's name.
        states: the supposed states.
        known: whether the node's lease is the real one.
    """
    values: list[Found] = []
    for node in lab.nodes:
        values += _host(node, here=node.name == here)
    if lab.overlay_mtu > 65535:
        values.append(Found(str(lab.overlay_mtu), "$FLANNEL_MTU", SOURCE))
    if here != SWITCH and not known and lab.node(here).subnet is None:
        values += _lease(lab.node(here), states[here])
    return values


def _host(node: Node, *, here: bool) -> Iterator[Found]:
    address, nic = str(node.address.ip), node.interface
    told = f"ADDRESS_{variable(node.name)}"
    unknown = int(node.address) < 2**16
    if here and nic.startswith(_NIC):
        how = typed(f"NIC=$(ip -o -4 addr show to {address} | awk '{{print $2; exit}}')")
        yield Found(nic, "$NIC", replace(how, note=f"the interface that has {address}"))
    if unknown and here:
        look = f"ip -o -4 addr show dev {nic} | awk -F'[ /]+' '{{print $4; exit}}'"
        yield Found(address, f"${told}", typed(f"{told}=$({look})", f"{nic}'s address"))
    elif unknown:
        ask = Command((":", f'"${{{told}:?is not set: the underlay address of {node.name}}}"'))
        yield Found(address, f"${told}", replace(ask, note=f"{node.name} knows its address"))


def _lease(node: Node, state: State) -> Iterator[Found]:
    assert state.subnet_env is not None  # noqa: S101 - supposed
    gateway = state.subnet_env.subnet
    yield Found(str(gateway), "$FLANNEL_SUBNET", SOURCE)
    yield Found(str(gateway.ip), "${FLANNEL_SUBNET%/*}", SOURCE)
    for container in node.containers:
        address = container_address(container, state)
        name = numbered("ADDRESS", node, container.name)
        how = _address(name, container, gateway.network.prefixlen)
        yield Found(str(address), f"${name}/{gateway.network.prefixlen}", how)


def _address(name: str, container: Container, length: int) -> Command:
    """The talk's line: FLANNEL_SUBNET with the last number replaced by the container's.

    In a subnet smaller than a /24 the last number is not 0; in a larger one it may not suffice.
    """
    high, low = divmod(container.host_number, 256)
    if length > 24:
        numbers = f'$1"."$2"."$3"."$4+{container.host_number - 1}'
    elif high:
        numbers = f'$1"."$2"."$3+{high}".{low}"'
    else:
        numbers = f'$1"."$2"."$3".{low}"'
    read = f"awk -F= '$1 ~ /^FLANNEL_SUBNET/{{print $2}}' {SUBNET_ENV}"
    words = (*typed(f"{name}=$({read}").words, "|", "awk", "-F'[./]'", f"'{{print {numbers}}}')")
    last = "its last number replaced by" if length <= 24 and not high else "it and"
    return Command(words, f"{container.name}'s address: FLANNEL_SUBNET, {last} {low}")
