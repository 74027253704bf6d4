"""The lab file: the YAML text in which a user describes the network to build.

Everything in it is optional; an empty file is the talk's lab. What is wrong with a file is reported
all at once. The way is `tree` (text to form), `form` (the form), `resolve` (form to `Lab`).
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from vxlab.errors import VxlabError
from vxlab.lab import ANYWHERE, UNKNOWN, Lab, Node, Underlay
from vxlab.labfile import form as labform
from vxlab.labfile import resolve as labcheck
from vxlab.labfile import value as labvalue
from vxlab.labfile.problem import MOST_PROBLEMS, Findings, Problem, quote

__all__ = ["LabFileError", "Problem", "default", "dumps", "load", "loads", "schema"]

#: Bytes of the largest lab file that is read. Every lab that `dumps` can write fits.
LARGEST_FILE = 2**20

#: Nodes from node01 on that fit a /24 with the talk's numbering, .21 to .254.
_NODES_IN_A_24 = 234
_MOST_NODES = 1023  # a Linux bridge has as many ports (BR_MAX_PORTS), and it joins the nodes

_WIDE_UNDERLAY = IPv4Network("192.168.0.0/16")
_WIDE_OVERLAY = IPv4Network("10.0.0.0/8")


class LabFileError(VxlabError):
    """The lab file describes no network that can be built.

    Args:
        problems: all that is wrong with it, in the order of its lines.
    """

    exit_code = 65

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        count = f"{'at least ' if len(problems) >= MOST_PROBLEMS else ''}{len(problems)} problems"
        super().__init__(
            f"the lab file has {'a problem' if len(problems) == 1 else count}",
            where=problems[0].file,
            detail="\n".join(str(problem) for problem in problems),
        )
        self.problems = problems

    def as_json(self) -> dict[str, Any]:
        """The error as the stable object that ``--json`` prints, with a list of the problems."""
        listed = [
            {name: getattr(p, name) for name in p.__dataclass_fields__} for p in self.problems
        ]
        return {**super().as_json(), "problems": listed}


def load(path: Path) -> Lab:
    """Read the network that a lab file describes.

    Raises:
        LabFileError: the file cannot be read, or there is something wrong with it.
    """
    source = str(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise _unreadable(source, said, "a readable lab file") from error
    except ValueError as error:  # a NUL in the path
        raise _unreadable(source, f"an impossible path, {error}", "a readable lab file") from error
    if len(data) > LARGEST_FILE:
        raise _unreadable(source, "more than 1 MiB", "a lab file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{data[error.start]:02x}, which is not UTF-8"
        raise _unreadable(source, found, "UTF-8 text", line) from error
    return loads(text, source)


def loads(text: str, source: str) -> Lab:
    """Read the network that a lab file's text describes.

    Args:
        text: YAML, of which JSON is a part.
        source: the file's name for messages.
    Raises:
        LabFileError: there is something wrong with it; carries every problem.
    """
    from vxlab.labfile import tree as labyaml

    form, findings = labyaml.read(text, source)
    return _resolve(form, findings)


def default(nodes: int = 2, name: str = "talk") -> Lab:
    """The talk's lab, or a larger one of the same kind.

    Beyond 234 nodes the underlay widens to 192.168.0.0/16 and beyond 255 the overlay to 10.0.0.0/8,
    so that a node's subnet stays a /24 and its first container has the address .10 in it.

    Args:
        nodes: how many nodes, from 1 to 1023.
        name: the lab's name.
    Raises:
        LabFileError: the count or the name is not possible.
    """
    source = "the default lab"
    findings = Findings(source)
    if not 1 <= nodes <= _MOST_NODES:
        findings.add(("nodes",), str(nodes), f"from 1 to {_MOST_NODES} nodes")
        raise LabFileError(findings.problems)
    if not labvalue.fits(name, labform.LabName):
        hint = labvalue.text_hint(name, labform.LabName)
        findings.add(("name",), quote(name), labvalue.wanted(labform.LabName), hint)
    form = labform.LabForm(
        name=name,
        underlay=labform.UnderlayForm(network=_WIDE_UNDERLAY) if nodes > _NODES_IN_A_24 else None,
        overlay=labform.OverlayForm(network=_WIDE_OVERLAY) if nodes > 255 else None,
        nodes={f"node{number:02d}": None for number in range(1, nodes + 1)},
    )
    return _resolve(form, findings)


def dumps(lab: Lab) -> str:
    """The lab as a lab file in JSON, which is YAML; `loads` makes the same lab of it."""
    overlay: dict[str, object] = {
        "network": str(lab.overlay.network),
        "subnet_length": lab.overlay.subnet_length,
        "backend": dict(lab.overlay.backend),
    }
    if lab.overlay.subnet_min is not None:
        overlay["subnet_min"] = str(lab.overlay.subnet_min)
    if lab.overlay.subnet_max is not None:
        overlay["subnet_max"] = str(lab.overlay.subnet_max)
    etcd: dict[str, object] = {
        "node": lab.etcd.node,
        "port": lab.etcd.port,
        "heartbeat_interval": lab.etcd.heartbeat_interval,
        "election_timeout": lab.etcd.election_timeout,
    }
    if lab.remote:
        etcd["insecure"] = lab.etcd.insecure
    text = {
        "name": lab.name,
        "underlay": _underlay(lab.underlay),
        "overlay": overlay,
        "etcd": etcd,
        "ipv6": lab.ipv6,
        "nodes": {node.name: _node(node) for node in lab.nodes},
    }
    return json.dumps(text, indent=2) + "\n"


def _underlay(underlay: Underlay) -> dict[str, object]:
    """What is known of the nodes' network; of real hosts' it may be nothing."""
    known: dict[str, object] = {}
    if underlay.network != ANYWHERE:
        known["network"] = str(underlay.network)
    if underlay.mtu:
        known["mtu"] = underlay.mtu
    if underlay.interface:
        known["interface"] = underlay.interface
    return known


def _node(node: Node) -> dict[str, object]:
    known: dict[str, object] = {"ssh": node.ssh} if node.ssh else {}
    if node.address != UNKNOWN:
        # A /32 is an address whose prefix length nobody has told; a lab file leaves that out.
        whole = node.address.network.prefixlen == 32
        known["address"] = str(node.address.ip if whole else node.address)
    if node.interface:
        known["interface"] = node.interface
    known["containers"] = [container.name for container in node.containers]
    if node.subnet is not None:
        known["subnet"] = str(node.subnet)
    return known


def schema() -> dict[str, Any]:
    """The JSON schema of lab files, for editors that check and complete YAML."""
    return labform.schema()


def _resolve(form: labform.LabForm, findings: Findings) -> Lab:
    lab = labcheck.resolve(form, findings)
    if lab is None:
        raise LabFileError(findings.problems)
    return lab


def _unreadable(source: str, found: str, wanted: str, line: int = 0) -> LabFileError:
    findings = Findings(source)
    findings.add((), found, wanted, line=line)
    return LabFileError(findings.problems)
