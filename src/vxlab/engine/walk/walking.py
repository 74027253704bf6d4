"""The walk itself: a generator that builds the lab stage by stage and tells what it sees."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from vxlab.engine.build import Build
from vxlab.engine.events import Event, OpDone
from vxlab.engine.running import Running, save
from vxlab.engine.up import refuse_another
from vxlab.engine.walk import wire
from vxlab.engine.walk.looking import Seen, look, need_programs
from vxlab.engine.walk.stages import STAGES, Cast, Look, Stage, cast_of, filled
from vxlab.engine.walk.wire import Sent, Shot
from vxlab.errors import UsageError
from vxlab.journal import LabDirectory
from vxlab.lab import Node
from vxlab.nodes.local import World
from vxlab.ops import Op
from vxlab.state import State
from vxlab.steps import node as nodes
from vxlab.steps.address import container_address
from vxlab.steps.overlay import subnet_of
from vxlab.steps.site import Site


@dataclass(frozen=True, slots=True)
class Opened:
    """A stage is about to begin; nothing of it is done before the next event is asked for."""

    stage: Stage
    number: int
    count: int
    title: str
    lesson: str


@dataclass(frozen=True, slots=True)
class Done:
    """Operations that were carried out, in their order."""

    changes: tuple[OpDone, ...]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Differs:
    """Reality is not what the talk says; the walk ends here, the lab stays."""

    stage: Stage
    expected: str
    seen: str


Step = Opened | Done | Seen | Sent | Differs


def refuse_existing(directory: LabDirectory) -> None:
    """The talk begins with nothing.

    Raises:
        UsageError: a lab of this name is up.
    """
    record = directory.world() if directory.exists() else None
    if record is not None and record.alive():
        raise UsageError(
            f"the lab {directory.name!r} is up already; the demo begins with nothing",
            hint=f"`vxlab teardown {directory.name}` first; a demo that was left goes on with"
            " `vxlab up`",
        )


def walk(
    site: Site, directory: LabDirectory, stages: Sequence[Stage] = STAGES
) -> Generator[Step, None, None]:
    """Give the talk. The lab is locked from its first stage on, until the generator is closed.

    Args:
        site: a lab on this machine, and its programs.
        directory: the lab's.
        stages: what to go through, in this order.

    Yields:
        What happens, as it happens. After `Differs` there is nothing more.

    Raises:
        UsageError: such a lab is up, or it is not one for the talk.
        VxlabError: a step failed; the lab stays as it is, for `up` or `teardown`.
    """
    cast = cast_of(site.lab)
    need_programs(site)
    refuse_existing(directory)
    yield _opened(stages, 0, cast)
    with directory.locked("vxlab demo", create=True):
        walker = _Walker(site, directory, cast)
        try:
            yield from walker.go(stages)
        finally:
            walker.running.close()


def _opened(stages: Sequence[Stage], index: int, cast: Cast) -> Opened:
    stage = stages[index]
    title, lesson = (filled(text, cast.words) for text in (stage.title, stage.lesson))
    return Opened(stage, index + 1, len(stages), title, lesson)


class _Walker:
    """A lab that grows during the talk.

    The process enters the lab's world here, while it has a single thread.
    """

    def __init__(self, site: Site, directory: LabDirectory, cast: Cast) -> None:
        refuse_existing(directory)
        refuse_another(site.lab, directory)
        save(directory, site)
        directory.write("hosts", nodes.hosts(site))
        world = World.start(directory, site.busybox)
        world.enter()
        self.cast = cast
        self.words = cast.words
        self.running = Running.local(site, directory, world)
        self._done: list[OpDone] = []
        names = {machine.name for machine in self.running.machines}
        self.build = Build(self.running, self._note, names, dict.fromkeys(names, State()))

    def _note(self, event: Event) -> None:
        if isinstance(event, OpDone):
            self._done.append(event)

    def _changes(self, remark: str = "") -> Done:
        """What was done since the last time; in the order of the nodes, not of the threads."""
        order = [machine.name for machine in self.running.machines]

        def place(event: OpDone) -> tuple[int, int]:
            # On the switch there are cables of several nodes, each named like its node.
            name = getattr(event.op, "name", "")
            return order.index(event.node), order.index(name) if name in order else 0

        done = sorted(self._done, key=place)
        self._done.clear()
        return Done(tuple(done), remark)

    def go(self, stages: Sequence[Stage]) -> Iterator[Step]:
        """All stages, the first of which is opened; to the first that is not as expected."""
        for index, stage in enumerate(stages):
            if index:
                yield _opened(stages, index, self.cast)
            for step in self._stage(stage):
                yield step
                if isinstance(step, Seen | Sent) and step.differs is not None:
                    yield Differs(stage, step.differs.expected, step.differs.seen)
                    return

    def _stage(self, stage: Stage) -> Iterator[Step]:
        for name in stage.steps:
            self.build.stage(name)
            yield self._changes()
        if "etcd" in stage.steps:
            self.running.etcd().wait_healthy()
        self._learn()
        yield from self._look(stage.looks)
        if stage.name == "wire":
            yield from self._wire()
        elif stage.name == "packet":
            yield from self._packet()

    def _look(self, looks: Iterable[Look]) -> Iterator[Seen]:
        for each in looks:
            if self._fits(each):
                yield look(self.running, self.cast, each, self.words)

    def _fits(self, each: Look) -> bool:
        """The talk's awk line is about a /24 and the number 10, which other labs need not have."""
        talk = self.cast.lab.overlay.subnet_length == 24 and self.cast.near.host_number == 10
        return talk or not each.command.startswith("awk")

    def _learn(self) -> None:
        """The words that flannel's choice decides, once it is made."""
        near = self.build.states[self.cast.near.node]
        far = self.build.states[self.cast.far.node]
        here, there = (
            container_address(self.cast.near, near),
            container_address(self.cast.far, far),
        )
        subnet = subnet_of(far)
        if here is None or there is None or subnet is None or near.subnet_env is None:
            return
        self.words |= {
            "near": str(here.ip),
            "far": str(there.ip),
            "gateway": str(near.subnet_env.subnet.ip),
            "farsubnet": str(subnet),
            "vtep": str(subnet.network_address),
        }

    # --- the MTU --------------------------------------------------------------------------------

    def _both(self, plan: Callable[[Node], Iterator[Op]]) -> None:
        """Carry operations out on the nodes of both containers; nothing of it is to stay."""
        for member in (self.cast.near_node, self.cast.far_node):

            def done(op: Op, name: str = member.name) -> None:
                self._note(OpDone("mtu", name, op, ""))

            self.running.node(member.name).apply(list(plan(member)), done)

    def _fire(self, shots: Iterable[Shot]) -> Iterator[Sent]:
        for shot in shots:
            yield wire.fire(self.running, self.cast, shot, self.words)

    def _wire(self) -> Iterator[Step]:
        lab = self.cast.lab
        self._both(lambda member: wire.raised(lab, member))
        yield self._changes()
        yield from self._fire(wire.raised_shots(lab))
        yield from self._look([wire.REFUSED])
        try:
            self._both(lambda member: wire.forced(lab, member))
            yield self._changes()
            yield from self._fire(wire.forced_shots(lab))
        finally:
            # Nothing of `up` looks at the MTU of flannel's interface: it must not stay.
            self._both(lambda member: wire.lowered(lab, member))
        yield self._changes("the nodes are as before; the cables still have the larger MTU")

    def _packet(self) -> Iterator[Step]:
        for name in (self.cast.near.node, self.cast.far.node):
            self.build.states[name] = self.running.node(name).snapshot()
            self.build.new.discard(name)
        self.build.stage("mtu")
        yield self._changes()
        yield from self._look(wire.FORGET)
        yield from self._fire(wire.lowered_shots(self.cast.lab))
