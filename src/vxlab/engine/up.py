"""Builds a lab on this machine, or repairs what drifted."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vxlab.engine.build import Build
from vxlab.engine.events import Emit, OpDone
from vxlab.engine.running import Running, save, stored_lab
from vxlab.errors import UsageError
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.nodes.local import World
from vxlab.state import State
from vxlab.steps import node
from vxlab.steps.site import Site


@dataclass(frozen=True, slots=True)
class Result:
    """What `up` did. No changes: the lab was up and as wanted."""

    lab: Lab
    fresh: bool  # built from nothing, not continued or repaired
    changes: tuple[OpDone, ...]
    seconds: float


def up(site: Site, directory: LabDirectory, emit: Emit, to: str | None = None) -> Result:
    """Build the lab, or bring it back to what it should look like.

    The lab's directory must be locked by the caller.

    Args:
        site: the lab and its programs.
        directory: the lab's.
        emit: is told what happens.
        to: the last step to do; None for all.

    Raises:
        UsageError: a lab of this name is there, but a different one.
        VxlabError: a step failed; the lab stays as it is, for `up` or `teardown`.
    """
    begun = time.monotonic()
    refuse_another(site.lab, directory)
    record = directory.world()
    fresh = record is None or not record.alive()
    save(directory, site)
    directory.write("hosts", node.hosts(site))
    world = World.start(directory, site.busybox) if fresh or record is None else World(record)
    world.enter()
    running = Running.local(site, directory, world)
    names = {machine.name for machine in running.machines}
    try:
        states = dict.fromkeys(names, State()) if fresh else running.states()
        build = Build(running, emit, names if fresh else set(), states)
        build.run(to)
    finally:
        running.close()
    return Result(site.lab, fresh, tuple(build.changes), time.monotonic() - begun)


def refuse_another(lab: Lab, directory: LabDirectory) -> None:
    """A lab that is there is continued or repaired, never turned into another one.

    Raises:
        UsageError: a lab of this name was built from another lab file.
    """
    old = stored_lab(directory)
    if old is not None and old != lab:
        raise UsageError(
            f"the lab {lab.name!r} was built from another lab file",
            where=lab.source,
            hint=f"`vxlab teardown {lab.name}` first, or give this one another name",
        )
