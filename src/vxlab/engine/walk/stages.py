"""The talk's stages as data: which steps are done, what is looked at, and what must be seen.

Commands and patterns hold words such as ``@far@``, which are known only when flannel has chosen
the subnets; `Cast.words` has them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vxlab import lessons
from vxlab.errors import UsageError
from vxlab.lab import FLANNEL_PREFIX, Container, Lab, Node
from vxlab.steps import bridge, etcd, overlay
from vxlab.steps.veth import INSIDE

_AWK = (
    "awk -F = '$1 ~ /^FLANNEL_SUBNET/ {print $2}' /var/run/flannel/subnet.env"
    """ | awk -F . '{print $1"."$2"."$3".10"}'"""
)
_PING = "ping -c 1 -W 3"


@dataclass(frozen=True, slots=True)
class Look:
    """A command that changes nothing, and what it must show.

    Args:
        where: one of the parts of `Cast`: etcd, near node, far node, near, far.
        command: as typed there.
        shows: patterns that its output must have; a named group is a word from there on.
        lacks: patterns that it must not have.
        works: whether it succeeds (exit code 0), as the talk says.
        remark: what to see in the output.
        cut: its lines are long, and their beginnings are enough.
    """

    where: str
    command: str
    shows: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    works: bool = True
    remark: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the talk.

    Args:
        name: one word.
        title: the same in a few.
        lessons: whose first paragraphs tell what is about to happen: names, and how many.
        steps: what is done.
        looks: what is looked at afterwards.
        text: what is about to happen, where no lesson tells it.
    """

    name: str
    title: str
    lessons: tuple[tuple[str, int], ...] = ()
    steps: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()
    text: str = ""

    @property
    def lesson(self) -> str:
        """What is about to happen and why, in one paragraph."""
        told = [" ".join(lessons.find(name).text[:count]) for name, count in self.lessons]
        return " ".join([*told, *([self.text] if self.text else [])])


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays the talk's parts: a container, one on another node, and the nodes of both."""

    lab: Lab
    near: Container
    far: Container

    @property
    def near_node(self) -> Node:
        return self.lab.node(self.near.node)

    @property
    def far_node(self) -> Node:
        return self.lab.node(self.far.node)

    def place(self, part: str) -> tuple[str, str]:
        """The node and the container of a part; no container for a node itself."""
        return {
            "etcd": (self.lab.etcd.node, ""),
            "near node": (self.near.node, ""),
            "far node": (self.far.node, ""),
            "near": (self.near.node, self.near.name),
            "far": (self.far.node, self.far.name),
        }[part]

    @property
    def words(self) -> dict[str, str]:
        """What is known before flannel has chosen the subnets."""
        lab = self.lab
        return {
            "bridge": bridge.NAME,
            "config": lab.overlay.flannel_config(),
            "device": overlay.device(lab),
            "farnode": str(self.far_node.address.ip),
            "inside": INSIDE,
            "log": etcd.LOG,
            "mtu": str(lab.overlay_mtu),
            "nearnode": str(self.near_node.address.ip),
            "nic": lab.nic(self.near_node),
            "port": str(lab.overlay.port),
            "prefix": FLANNEL_PREFIX,
            "underlay": str(lab.underlay.mtu),
            "veth": self.near.veth,
            "vni": str(lab.overlay.vni),
        }


def cast_of(lab: Lab) -> Cast:
    """The first two containers that are on different nodes.

    Raises:
        UsageError: the lab is not one that the talk could be given with.
    """
    if lab.remote:
        what, hint = "runs on this machine only", "`vxlab up LAB --to STEP` stops anywhere"
    elif not overlay.encapsulated(lab):
        what = "is about VXLAN, which this lab does not use between its nodes"
        hint = "take flannel's vxlan backend, without DirectRouting"
    else:
        near = next(iter(lab.containers), None)
        far = next((c for c in lab.containers if near and c.node != near.node), None)
        if near is not None and far is not None:
            return Cast(lab, near, far)
        what, hint = "needs two nodes with a container each", "`vxlab demo` brings its own lab"
    raise UsageError(f"the demo {what}", where=lab.source, hint=hint)


def filled(text: str, words: Mapping[str, str], *, pattern: bool = False) -> str:
    """The text with its words; those of a pattern stand for themselves."""

    def word(found: re.Match[str]) -> str:
        return re.escape(words[found[1]]) if pattern else words[found[1]]

    return re.sub(r"@(\w+)@", word, text)


STAGES: tuple[Stage, ...] = (
    Stage(
        "network",
        "two machines on one network",
        (("node", 1), ("underlay", 2)),
        ("switch", "node", "underlay"),
        (
            Look("near node", "ip -br address show dev @nic@", ("@nearnode@/",)),
            Look("far node", "ip -br address show dev @nic@", ("@farnode@/",)),
            Look(
                "near node",
                "ip link show dev @nic@",
                ("mtu @underlay@ ",),
                remark="MTU @underlay@: the largest IP packet that this network carries",
            ),
        ),
    ),
    Stage(
        "etcd",
        "where the flannelds agree",
        (("etcd", 2),),
        ("etcd",),
        (
            Look("etcd", "head -n 3 @log@", ("etcd",), cut=True),
            Look("etcd", "ps -ef | grep '[e]tcd'", ("--listen-client-urls",), cut=True),
            Look("etcd", "etcdctl member list", ("started",), remark="one member: etcd serves"),
        ),
    ),
    Stage(
        "config",
        "flannel's configuration",
        (("config", 1), ("overlay", 1)),
        ("config",),
        (Look("etcd", "etcdctl get @prefix@/config", ("@config@",)),),
    ),
    Stage(
        "flannel",
        "a subnet for every node",
        (("flannel", 2),),
        ("flannel",),
        (
            Look(
                "near node",
                "cat /var/run/flannel/subnet.env",
                ("FLANNEL_SUBNET=", "FLANNEL_MTU=@mtu@"),
            ),
            Look(
                "far node",
                "cat /var/run/flannel/subnet.env",
                ("FLANNEL_SUBNET=", "FLANNEL_MTU=@mtu@"),
                remark="another subnet of the same network; the MTU is @underlay@ less 50",
            ),
            Look(
                "etcd",
                "etcdctl get --prefix @prefix@/subnets",
                ('"PublicIP":"@nearnode@"', '"PublicIP":"@farnode@"', "VtepMAC"),
                remark="the leases: which node has which subnet, and its VTEP's MAC",
            ),
        ),
    ),
    Stage(
        "container",
        "busybox in namespaces",
        (("container", 2),),
        ("container",),
        (
            Look("near", "ps", (r"(?m)^ +1 ",)),
            Look(
                "near",
                "ip link",
                (r"\blo:",),
                ("@inside@", "@nic@"),
                remark="processes of its own, and no way out: lo is its only interface",
            ),
        ),
    ),
    Stage(
        "veth",
        "a cable into each container",
        (("veth", 3),),
        ("veth",),
        (
            Look("near", "ip link show @inside@", ("mtu 1500 ",)),
            Look("near node", "ip link show @veth@", ("mtu 1500 ",), remark="1500 at both ends"),
        ),
    ),
    Stage(
        "mtu",
        "room for the encapsulation",
        (("mtu", 2),),
        ("mtu",),
        (
            Look("near", "ip link show @inside@", ("mtu @mtu@ ",)),
            Look(
                "near node",
                "ip link show @veth@",
                ("mtu @mtu@ ",),
                remark="what happens without this is shown on the wire later",
            ),
        ),
    ),
    Stage(
        "address",
        "out of the node's subnet",
        (("address", 2),),
        ("address",),
        (
            Look("near node", _AWK, ("@near@",), remark="the talk finds the address like this"),
            Look("near", "ip address show @inside@", ("inet @near@/",)),
            Look(
                "near",
                f"{_PING} @far@",
                ("Network is unreachable",),
                works=False,
                remark="no route: the container's kernel does not even send it",
            ),
        ),
    ),
    Stage(
        "bridge",
        "the containers' gateway",
        (("bridge", 2),),
        ("bridge",),
        (
            Look("near node", "ip -br address show dev @bridge@", ("@gateway@/",)),
            Look("near", f"{_PING} @gateway@", (" 0% packet loss",), remark="the gateway answers"),
            Look(
                "near",
                f"{_PING} @far@",
                ("Network is unreachable",),
                works=False,
                remark="the other container is still unreachable: there is no route to it",
            ),
        ),
    ),
    Stage(
        "route",
        "the way out, and nodes that pass packets on",
        (("route", 1), ("forwarding", 1)),
        ("route", "forwarding"),
        (
            Look("near", "ip route", ("default via @gateway@ ",)),
            Look("near", "ping -c 3 -W 3 @far@", (" 0% packet loss",), remark="it works at last"),
            Look("far", f"{_PING} @near@", (" 0% packet loss",), remark="and the other way round"),
        ),
    ),
    Stage(
        "why",
        "what carries the packet",
        (),
        (),
        (
            Look(
                "near node",
                "ip -d link show @device@",
                ("vxlan id @vni@ ", "local @nearnode@ ", "dstport @port@ ", "nolearning"),
                remark="a VXLAN interface: VNI @vni@, port @port@; it learns nothing by itself",
            ),
            Look(
                "near node",
                "ss -uanp",
                (r":@port@\s",),
                (r":@port@\s.*users:",),
                remark="the port is open but belongs to no process: the kernel owns the socket",
            ),
            Look(
                "near node",
                "ip route show dev @device@",
                (r"@farsubnet@ via @vtep@ ",),
                remark="the other subnet is behind @device@; the next hop is its first address",
            ),
            Look(
                "near node",
                "ip neigh show dev @device@",
                (r"@vtep@ lladdr (?P<mac>[0-9a-f:]{17}) PERMANENT",),
                remark="the neighbour entry gives the next hop's MAC; flanneld put it there",
            ),
            Look(
                "near node",
                "bridge fdb show dev @device@",
                ("@mac@ dst @farnode@ ",),
                remark="the FDB knows which node that MAC is behind: @farnode@",
            ),
        ),
        "The packet leaves its container by the cable, gets to the bridge, and the node routes it"
        " to flannel's interface. There it is put into another packet. The route gives the next"
        " hop, the neighbour entry its MAC, the forwarding database (FDB) the node that this MAC"
        " is behind. Then the kernel sends it as UDP on the underlay. flanneld wrote all these"
        " entries, and no packet passes through it.",
    ),
    Stage(
        "wire",
        "@underlay@ bytes inside",
        text="What if nobody had lowered the MTU? Both ends of each cable get the underlay's MTU"
        " again, and a full-size packet is sent, first as one that may be cut into fragments, then"
        " with the don't-fragment bit. A capture on the underlay shows what becomes of it.",
    ),
    Stage(
        "packet",
        "@mtu@ bytes inside, and the packet drawn",
        (("encapsulation", 1),),
        text="So the step mtu is done again: with @mtu@ inside, what leaves a container fits.",
    ),
)
