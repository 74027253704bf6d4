"""A lab that is there: its world entered, its nodes at hand, what they look like."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

from vxlab import etcd as client
from vxlab import labfile
from vxlab.errors import JournalError, UsageError
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.nodes import Etcd, Node, remote
from vxlab.nodes.etcdctl import Etcdctl
from vxlab.nodes.local import LocalNode, World
from vxlab.nodes.remote import Login, RemoteNode, connected, targets
from vxlab.ops import pending
from vxlab.state import State
from vxlab.steps import steps_of
from vxlab.steps.etcd import SOCKET
from vxlab.steps.site import SWITCH, Site, States, changed

#: Nodes that are worked on at the same time. On one machine more gains nothing: flanneld's start is
#: CPU-bound, and the fewer flannelds start at once the fewer lose the race for a subnet.
WORKERS = 8


def workers(lab: Lab) -> int:
    """How many nodes are worked on at the same time."""
    return min(len(lab.nodes) + 1, remote.WORKERS if lab.remote else WORKERS)


@dataclass(frozen=True, slots=True)
class Drift:
    """One way in which a node differs from the lab, and the step that would mend it."""

    step: str
    node: str
    reason: str
    command: str


def save(directory: LabDirectory, site: Site) -> None:
    """Keep the lab as it is built; its file may be edited, moved or lost later."""
    directory.write("lab.json", labfile.dumps(site.lab))
    kept = (f.name for f in fields(site) if f.name not in ("lab", "certificates"))
    programs = {name: getattr(site, name) for name in kept}
    directory.write("site.json", json.dumps(programs))


def stored_lab(directory: LabDirectory) -> Lab | None:
    """The lab as it was built, None if it never was.

    Raises:
        JournalError: the stored lab is damaged.
    """
    text = directory.read("lab.json")
    if text is None:
        return None
    try:
        return labfile.loads(text, str(directory.path / "lab.json"))
    except labfile.LabFileError as error:
        raise _damaged(directory, str(error)) from None


def stored_site(directory: LabDirectory) -> Site | None:
    """The lab with its programs, as it was built.

    Raises:
        JournalError: what is stored is damaged.
    """
    lab, text = stored_lab(directory), directory.read("site.json")
    if lab is None or text is None:
        return None
    try:
        return Site(lab=lab, **json.loads(text))
    except (ValueError, TypeError) as error:
        raise _damaged(directory, str(error)) from None


def _damaged(directory: LabDirectory, why: str) -> JournalError:
    return JournalError(
        f"what is stored of the lab {directory.name!r} is damaged",
        where=str(directory.path),
        detail=why,
        hint=f"`vxlab teardown {directory.name} --force` removes the lab",
    )


class Running:
    """A lab that is up, or about to be: its nodes at hand, and the switch of a local one."""

    def __init__(
        self,
        site: Site,
        directory: LabDirectory,
        nodes: Mapping[str, Node],
        switch: LocalNode | None = None,
    ) -> None:
        self.site = site
        self.directory = directory
        self.nodes = nodes
        self.switch = switch
        self._etcd: Etcd | None = None

    @classmethod
    def local(cls, site: Site, directory: LabDirectory, world: World) -> Running:
        """A lab in a world of this machine, which this process has entered."""
        journal = directory.append_undo
        switch = LocalNode(SWITCH, "", world.proc, journal)
        names = [node.name for node in site.lab.nodes]
        nodes = {n: LocalNode(n, world.proc, journal=journal) for n in names}
        return cls(site, directory, nodes, switch)

    @classmethod
    def attach(cls, directory: LabDirectory, login: Login) -> Running:
        """Enter a lab that is up, or connect to its hosts.

        Raises:
            UsageError: there is no such lab, or it is not up (any more).
            UnreachableError, RefusedError: a real host cannot be reached.
        """
        site = stored_site(directory)
        if site is None:
            raise no_lab(directory)
        if site.lab.remote:
            nodes = connected(site.lab.name, targets(site.lab), login)
            for node in nodes.values():
                node.watch(site)
            return cls(site, directory, nodes)
        record = directory.world()
        if record is None:
            raise no_lab(directory)
        if not record.alive():
            raise UsageError(
                f"the lab {directory.name!r} is not running (was this machine restarted?)",
                hint=f"`vxlab up {directory.name}` builds it again, `vxlab teardown` removes it",
            )
        world = World(record)
        world.enter()
        return cls.local(site, directory, world)

    @property
    def machines(self) -> list[Node]:
        """The switch, where there is one, and the nodes."""
        return [*([self.switch] if self.switch else []), *self.nodes.values()]

    @property
    def hosts(self) -> dict[str, RemoteNode]:
        """The nodes of a lab on real hosts; none of a local one."""
        return {name: n for name, n in self.nodes.items() if isinstance(n, RemoteNode)}

    def close(self) -> None:
        if self._etcd is not None:
            self._etcd.close()
            self._etcd = None
        with ThreadPoolExecutor(workers(self.site.lab)) as pool:
            list(pool.map(lambda node: node.close(), self.machines))

    def node(self, name: str) -> Node:
        if name == SWITCH and self.switch is not None:
            return self.switch
        return self.nodes[name]

    @property
    def etcd_node(self) -> Node:
        return self.nodes[self.site.lab.etcd.node]

    def etcd(self) -> Etcd:
        """The connection to the lab's etcd, made once."""
        if self._etcd is None:
            node = self.etcd_node
            if isinstance(node, LocalNode):
                socket = Path(f"{node.proc}/root{SOCKET}")
                self._etcd = client.Etcd(socket, lambda: node.alive("etcd"))
            else:
                assert isinstance(node, RemoteNode)  # noqa: S101
                self._etcd = Etcdctl(node, self.site)
        return self._etcd

    def states(self) -> dict[str, State]:
        """What the switch and all nodes look like, read in parallel; a node that is down is empty.

        etcd's keys are not asked for.
        """

        def look(node: Node) -> State:
            return node.snapshot() if node.running() else State()

        members = self.machines
        with ThreadPoolExecutor(workers(self.site.lab)) as pool:
            return dict(zip((n.name for n in members), pool.map(look, members), strict=True))


def no_lab(directory: LabDirectory) -> UsageError:
    """The answer to who asks for a lab that is not there."""
    hint = "`vxlab up` builds one"
    return UsageError(f"there is no lab called {directory.name!r}", hint=hint)


def places(lab: Lab, on: str) -> Iterator[tuple[str, str]]:
    """For each node that a step works for: (the lab's node, the machine that is changed)."""
    if on in ("nodes", "cables"):
        names = [node.name for node in lab.nodes]
    else:
        names = [lab.nodes[0].name if on == "switch" else lab.etcd.node]
    yield from ((name, changed(on, name)) for name in names)


def drift(site: Site, states: States) -> list[Drift]:
    """How the nodes differ from the lab; empty if `up` would change nothing on them.

    etcd's keys are not looked at: asking etcd takes longer than all the rest.
    """
    found = []
    for step in steps_of(site.lab):
        if step.on == "keys":
            continue
        for name, place in places(site.lab, step.on):
            todo = step.plan(site, site.lab.node(name), states)
            found += [
                Drift(step.name, place, reason, str(op))
                for op, reason in pending(todo, states[place])
            ]
    return found
