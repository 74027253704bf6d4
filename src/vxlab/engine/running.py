"""A lab that is there: its world entered, its nodes at hand, what they look like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

from vxlab import labfile
from vxlab.errors import JournalError, UsageError
from vxlab.etcd import Etcd
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.nodes.local import LocalNode, World
from vxlab.ops import pending
from vxlab.state import State
from vxlab.steps import STEPS
from vxlab.steps.etcd import SOCKET
from vxlab.steps.site import SWITCH, Site, States, changed

#: Nodes that are worked on at the same time. More gains nothing: flanneld's start is CPU-bound,
#: and the fewer flannelds start at once the fewer lose the race for a subnet.
WORKERS = 8


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
    programs = {f.name: getattr(site, f.name) for f in fields(site) if f.name != "lab"}
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
    """A local lab's world and nodes."""

    def __init__(self, site: Site, directory: LabDirectory, world: World) -> None:
        self.site = site
        self.directory = directory
        self.switch = LocalNode(SWITCH, "", world.proc)
        self.nodes = {n.name: LocalNode(n.name, world.proc) for n in site.lab.nodes}
        self._etcd: Etcd | None = None

    @classmethod
    def attach(cls, directory: LabDirectory) -> Running:
        """Enter a lab that is up.

        Raises:
            UsageError: there is no such lab, or it is not up (any more).
        """
        site = stored_site(directory)
        record = directory.world()
        if site is None or record is None:
            raise UsageError(
                f"there is no lab called {directory.name!r}", hint="`vxlab up` builds one"
            )
        if not record.alive():
            raise UsageError(
                f"the lab {directory.name!r} is not running (was this machine restarted?)",
                hint=f"`vxlab up {directory.name}` builds it again, `vxlab teardown` removes it",
            )
        world = World(record)
        world.enter()
        return cls(site, directory, world)

    def close(self) -> None:
        for node in (self.switch, *self.nodes.values()):
            node.close()
        if self._etcd is not None:
            self._etcd.close()
            self._etcd = None

    def node(self, name: str) -> LocalNode:
        return self.switch if name == SWITCH else self.nodes[name]

    @property
    def etcd_node(self) -> LocalNode:
        return self.nodes[self.site.lab.etcd.node]

    def etcd(self) -> Etcd:
        """The connection to the lab's etcd, made once."""
        if self._etcd is None:
            node = self.etcd_node
            socket = Path(f"{node.proc}/root{SOCKET}")
            self._etcd = Etcd(socket, lambda: node.alive("etcd"))
        return self._etcd

    def states(self) -> dict[str, State]:
        """What the switch and all nodes look like, read in parallel; a node that is down is empty.

        etcd's keys are not asked for.
        """

        def look(node: LocalNode) -> State:
            return node.snapshot() if node.running() else State()

        members = [self.switch, *self.nodes.values()]
        with ThreadPoolExecutor(WORKERS) as pool:
            return dict(zip((n.name for n in members), pool.map(look, members), strict=True))


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
    for step in STEPS:
        if step.on == "keys":
            continue
        for name, place in places(site.lab, step.on):
            todo = step.plan(site, site.lab.node(name), states)
            found += [
                Drift(step.name, place, reason, str(op))
                for op, reason in pending(todo, states[place])
            ]
    return found
