"""Builds a lab's nodes in parallel: plan a step, journal its undo, apply it, wait for it.

etcd boots while the containers are built, and what needs it waits for it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from vxlab import etcd as client
from vxlab.engine.events import Emit, OpDone, StepFinished, StepStarted, Told
from vxlab.engine.running import Running, workers
from vxlab.errors import DaemonError, OperationError
from vxlab.lab import Node
from vxlab.nodes.local import LocalNode
from vxlab.ops import Op, PutKey, StartNode, cleared, pending
from vxlab.state import SUBNET_ENV, State, SubnetEnv, parse_proc_route, parse_subnet_env
from vxlab.steps import BY_NAME, etcd, flannel, overlay, steps_of
from vxlab.steps.site import changed

#: flannel picks a subnet at random; that many lost races in a row do not happen by chance.
_TRIES = 20
_ALIVE_EVERY = 10  # looks; asking whether a daemon lives costs more than looking for its file
_PATIENCE = 60.0  # seconds until a daemon that is still alive counts as stuck

#: The steps of one node, in the order that lets etcd boot meanwhile; a lab has some of them.
_BEFORE_ETCD = ("node", "underlay", "host", "tls")
_WHILE_ETCD_BOOTS = ("container", "veth", "mtu", "forwarding")
_WITH_A_LEASE = ("address", "bridge", "route")


class _Stopped(Exception):  # noqa: N818 - an answer, not an error
    """Another node failed, or the user pressed Ctrl-C: leave quietly."""


def _last_words(log: str) -> list[str]:
    """A log without the stack traces in which a Go program's reason to end drowns."""
    lines = [line.partition(',"stacktrace":')[0] for line in log.splitlines() if line]
    trace = re.compile(r"goroutine \d+ \[|created by |\t")
    following = [*lines[1:], ""]
    pairs = zip(lines, following, strict=True)
    return [line for line, after in pairs if not trace.match(line) and after[:1] != "\t"]


class Build:
    """One `up`, from the first step to the last entry in the kernel's tables.

    Args:
        running: the lab's nodes.
        emit: is told what happens.
        new: the machines that this run made, or found without anything of the lab: known to be
            empty, so that there is no need to look at them after every step.
        states: what the nodes look like.
    """

    def __init__(
        self, running: Running, emit: Emit, new: set[str], states: Mapping[str, State]
    ) -> None:
        self.running = running
        self.site = running.site
        self.lab = running.site.lab
        self.emit = emit
        self.changes: list[OpDone] = []
        self.new = new
        self.states = dict(states)
        self.fresh = self.lab.etcd.node in new
        self._names = {step.name for step in steps_of(self.lab)}
        # etcd's, once it serves; apart from the states, which other threads replace meanwhile.
        self._keys: dict[str, str] = {}  # a fresh lab's are not read: there are none yet
        self._configured = threading.Event()
        self._stop = threading.Event()

    def run(self, to: str | None = None) -> None:
        """Build everything; or only up to a step, one after the other in the talk's order."""
        if to is not None:
            for step in steps_of(self.lab):
                self.stage(step.name)
                if step.name == to:
                    return
        first = self.lab.etcd_node
        if not self.lab.remote:
            # etcd's client takes longer to load than etcd to boot: both go on meanwhile.
            threading.Thread(target=client.load).start()
        self._step("switch", self.lab.nodes[0])
        for name in _BEFORE_ETCD:
            self._step(name, first)
        self._step("etcd", first, self._etcd_is_alive)
        order = [first, *(n for n in self.lab.nodes if n is not first)]
        self._parallel(self._build_node, order, beside=self._configure)
        self._parallel(self._converge, order)

    def stage(self, name: str) -> None:
        """One step on all nodes that it concerns, with what has to be waited for."""
        nodes = list(self.lab.nodes)
        if name == "config":
            self._configure()
        elif name == "etcd":
            self._step(name, self.lab.etcd_node, self._etcd_is_alive)
        elif name == "switch":
            self._step(name, nodes[0])
        elif name == "flannel":
            self._parallel(lambda member: self._step(name, member, self._await_lease), nodes)
            self._parallel(self._converge, nodes)
        else:
            self._parallel(lambda member: self._step(name, member), nodes)

    def _parallel(
        self,
        work: Callable[[Node], None],
        nodes: list[Node],
        beside: Callable[[], None] | None = None,
    ) -> None:
        with ThreadPoolExecutor(workers(self.lab) + 1) as pool:
            futures: list[Future[None]] = [pool.submit(work, n) for n in nodes[:1]]
            if beside is not None:
                futures.append(pool.submit(beside))
            futures += [pool.submit(work, n) for n in nodes[1:]]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                if not all(f.done() and f.exception() is None for f in futures):
                    self._stop.set()
                    pool.shutdown(cancel_futures=True)
        failed = [f.exception() for f in futures if f.done() and not f.cancelled()]
        for error in failed:
            if error is not None and not isinstance(error, _Stopped):
                raise error

    def _build_node(self, member: Node) -> None:
        before = () if member.name == self.lab.etcd.node else _BEFORE_ETCD
        for name in (*before, *_WHILE_ETCD_BOOTS):
            self._step(name, member)
        self._await(self._configured.is_set, "etcd's configuration", member.name)
        self._step("flannel", member, self._await_lease)
        for name in _WITH_A_LEASE:
            self._step(name, member)

    def _configure(self) -> None:
        """Wait for etcd and give it flannel's configuration, while the nodes are being built."""
        member = self.lab.etcd_node
        begun = time.monotonic()
        self.emit(StepStarted("config", member.name))
        server = self.running.etcd()
        try:
            server.wait_healthy()
        except DaemonError as error:
            raise self._with_log(error, member.name, etcd.LOG) from None
        if not self.fresh:
            self._keys = server.keys()
        known = self._known()
        done = pending(BY_NAME["config"].plan(self.site, member, known), known[member.name])
        for op, reason in done:
            assert isinstance(op, PutKey)  # noqa: S101
            server.put(op.key, op.value)
            self._changed(OpDone("config", member.name, op, reason))
        if done and not self.fresh:
            self._keys = server.keys()
        self.emit(StepFinished("config", member.name, time.monotonic() - begun, len(done)))
        self._configured.set()

    # --- one step on one node -------------------------------------------------------------------

    def _step(self, name: str, member: Node, ready: Callable[[Node], None] | None = None) -> None:
        if self._stop.is_set():
            raise _Stopped
        if name not in self._names:
            return
        begun = time.monotonic()
        self.emit(StepStarted(name, member.name))
        step = BY_NAME[name]
        place = changed(step.on, member.name)
        plan = list(step.plan(self.site, member, self._known()))
        changes = self._apply(name, member, place, plan)
        if ready is not None:
            ready(member)
        self.emit(StepFinished(name, member.name, time.monotonic() - begun, changes))

    def _known(self) -> dict[str, State]:
        """What the nodes look like, with etcd's keys as they are by now."""
        name = self.lab.etcd.node
        return {**self.states, name: replace(self.states[name], keys=self._keys)}

    def _apply(self, step: str, member: Node, place: str, plan: list[Op]) -> int:
        before = self.states[place]
        reasons = pending(plan, before)
        if not reasons:
            return 0
        if any(isinstance(op, StartNode) for op, _ in reasons):
            machine = self.running.nodes[member.name]
            assert isinstance(machine, LocalNode)  # noqa: S101 - nobody starts a real host
            machine.forget()
            self.states[member.name] = State()
            self.new.add(member.name)
        why = dict(reasons)
        todo = cleared((op for op, _ in reasons), before)
        undo = [back for op in reversed(todo) for back in op.undo(before)]

        def done(op: Op) -> None:
            self._changed(OpDone(step, place, op, why.get(op, "")))

        target = self.running.node(place)
        try:
            target.apply(todo, done, undo)
        except OperationError as error:
            error.where = f"{error.where} · {step}"
            raise
        if place not in self.new:
            self.states[place] = target.snapshot()
        return len(todo)

    def _changed(self, event: OpDone) -> None:
        self.changes.append(event)
        self.emit(event)

    # --- waiting --------------------------------------------------------------------------------

    def _await(self, condition: Callable[[], bool], what: str, where: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        pace = self.running.node(where).pace
        while not condition():
            if self._stop.wait(pace):
                raise _Stopped
            if time.monotonic() > deadline:
                raise DaemonError(f"waited {_PATIENCE:g} s for {what}", where=where)

    def _etcd_is_alive(self, member: Node) -> None:
        if not self.running.etcd_node.alive("etcd"):
            raise self._with_log(DaemonError("etcd ended at once"), member.name, etcd.LOG)

    def _with_log(self, error: DaemonError, where: str, log: str) -> DaemonError:
        text = self.running.node(where).read(log) or ""
        last = "\n".join(_last_words(text)[-6:])
        return DaemonError(error.message, where=f"{where} · {log}", detail=last or error.detail)

    def _await_lease(self, member: Node) -> None:
        """Wait for subnet.env; a flanneld that lost the race for its subnet is started again."""
        target = self.running.nodes[member.name]
        lease: SubnetEnv | None = None
        tries = looks = 0

        def leased() -> bool:
            nonlocal lease, tries, looks
            looks += 1
            lease = parse_subnet_env(target.read(SUBNET_ENV) or "")
            if lease is not None:
                return True
            if looks % _ALIVE_EVERY or target.alive("flannel"):
                return False
            log = target.read(flannel.LOG) or ""
            tries += 1
            if tries > _TRIES or flannel.LOST_RACE not in log[-2000:]:
                error = DaemonError("flanneld ended before it had a subnet")
                raise self._with_log(error, member.name, flannel.LOG)
            self.emit(Told(member.name, "flanneld lost the race for its subnet; started again"))
            plan = list(BY_NAME["flannel"].plan(self.site, member, self.states))
            self._apply("flannel", member, member.name, plan)
            return False

        try:
            self._await(leased, "flanneld's subnet.env", member.name)
        except DaemonError as error:
            if error.detail:
                raise
            raise self._with_log(error, member.name, flannel.LOG) from None
        self.states[member.name] = replace(self.states[member.name], subnet_env=lease)

    def _converge(self, member: Node) -> None:
        """Wait until flannel has given the node its entries for all the others."""
        target = self.running.nodes[member.name]
        wanted = overlay.routed(self.lab, member, self.states)

        def routed() -> bool:
            # flannel adds the neighbour and the FDB entry first and the route last.
            return wanted <= parse_proc_route(target.routes())

        def whole() -> bool:
            self.states[member.name] = target.snapshot()
            return not any(overlay.missing(self.lab, member, self.states))

        try:
            self._await(routed, "flannel's routes", member.name)
            if self.changes and member.name not in self.new:
                self._await(whole, "flannel's entries", member.name)
        except DaemonError as error:
            raise self._with_log(error, member.name, flannel.LOG) from None
