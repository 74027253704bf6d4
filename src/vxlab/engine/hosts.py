"""Builds a lab on real hosts, and takes it away from them again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from vxlab import certificates, hostcheck
from vxlab.engine.build import Build
from vxlab.engine.events import Emit, Preparing, Told
from vxlab.engine.running import Running, save, stored_lab
from vxlab.engine.up import Result, refuse_another
from vxlab.errors import MissingError, OperationError, VxlabError
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.nodes import cargo, ledger
from vxlab.nodes.cargo import Cargo
from vxlab.nodes.remote import (
    WORKERS,
    Login,
    RemoteNode,
    close,
    connect,
    connected,
    targets,
    together,
)
from vxlab.ops import outlasting, pending
from vxlab.state import State
from vxlab.steps import BY_NAME, tls
from vxlab.steps.site import Site

T = TypeVar("T")
Nodes = Mapping[str, RemoteNode]


def _each(nodes: Nodes, work: Callable[[RemoteNode], T]) -> dict[str, T]:
    """Do something on all hosts at once.

    Raises:
        VxlabError: it failed on one of them, or on several, which are all told.
    """

    def one(node: RemoteNode) -> T | VxlabError:
        try:
            return work(node)
        except VxlabError as error:
            return error

    with ThreadPoolExecutor(len(nodes)) as pool:  # some things must happen on all at once
        found = dict(zip(nodes, pool.map(one, nodes.values()), strict=True))
    failed = [answer for answer in found.values() if isinstance(answer, VxlabError)]
    if failed:
        raise together(failed)
    return {name: answer for name, answer in found.items() if not isinstance(answer, VxlabError)}


def up(
    lab: Lab,
    directory: LabDirectory,
    goods: Callable[[], Cargo],
    login: Login,
    emit: Emit,
    to: str | None = None,
) -> Result:
    """Build the lab on its hosts, or bring it back to what it should look like.

    Nothing is changed before every host was asked whether it can carry the lab.

    Args:
        lab: its nodes are hosts behind SSH.
        directory: the lab's, locked by the caller.
        goods: finds the programs that travel; called while the hosts are connected to.
        login: how to get into the hosts.
        emit: is told what happens.
        to: the last step to do; None for all.

    Raises:
        UnreachableError, RefusedError: a host cannot be reached or does not let us in.
        MissingError: hosts cannot carry the lab; all reasons of all hosts.
        VxlabError: a step failed; the lab stays as it is, for `up` or `teardown`.
    """
    begun = time.monotonic()
    known = stored_lab(directory) is not None
    emit(Preparing(f"connecting to {len(lab.nodes)} hosts"))
    with ThreadPoolExecutor(1) as pool:
        weighing = pool.submit(goods)
        nodes: Nodes = {}
        try:
            nodes = connected(lab.name, targets(lab), login)
            return _up(lab, directory, weighing.result(), nodes, emit, begun, to)
        finally:
            close(nodes)
            if not known and stored_lab(directory) is None:
                directory.remove()  # nothing was begun


def _up(
    lab: Lab,
    directory: LabDirectory,
    goods: Cargo,
    nodes: Nodes,
    emit: Emit,
    begun: float,
    to: str | None,
) -> Result:
    _each(nodes, lambda node: node.take("vxlab up", make=False))
    emit(Preparing(f"looking at {len(nodes)} hosts"))
    findings, facts = examine(lab, nodes)
    _judge(lab, findings, emit)
    lab = hostcheck.located(lab, facts)
    refuse_another(lab, directory)
    _each(nodes, lambda node: _send(node, goods, emit))
    site = goods.site(lab)
    _reach(site, facts, nodes, emit)
    _each(nodes, lambda node: node.take("vxlab up", make=True))
    save(directory, site)
    if directory.hosts() != targets(lab):
        directory.append({"hosts": targets(lab)}, sync=True)
    new = {node.name for node in nodes.values() if not node.ledger.entries}
    for node in nodes.values():
        node.watch(site)
    running = Running(site, directory, nodes)
    states = running.states()
    running.site = _certified(site, states)
    build = Build(running, emit, new, states)
    build.run(to)
    fresh = len(new) == len(nodes)
    return Result(lab, fresh, tuple(build.changes), time.monotonic() - begun)


def _send(node: RemoteNode, goods: Cargo, emit: Emit) -> None:
    def progress(name: str, done: int, total: int) -> None:
        emit(Preparing(f"{node.name}: sending {name}, {done >> 20} of {total >> 20} MiB"))

    goods.send(node, progress)


def _certified(site: Site, states: Mapping[str, State]) -> Site:
    """A site with new certificates for all, if any of the hosts lacks any of its own.

    The authority's key is not kept, so one host's cannot be replaced alone. An `up` that was cut
    off in the middle of that leaves hosts with different authorities.
    """
    plan = BY_NAME["tls"].plan
    members = site.lab.nodes
    missing = any(pending(plan(site, node, states), states[node.name]) for node in members)
    ca = tls.path(site.lab, tls.CA)
    if missing or len({states[node.name].files.get(ca) for node in members}) > 1:
        return replace(site, certificates=certificates.make(site.lab))
    return site


def _judge(lab: Lab, findings: Sequence[hostcheck.HostFinding], emit: Emit) -> None:
    """Tell of what looks odd, and stop at what is wrong.

    Raises:
        MissingError: the hosts cannot carry the lab; all reasons of all hosts.
    """
    bad = [f for f in findings if f.ok is False]
    if bad:
        wide = max(len(f.host) for f in bad)
        lines = []
        for finding in bad:
            lines.append(f"{finding.host:<{wide}}  {finding.title}: {finding.seen}")
            lines += [f"{'':<{wide}}  {line}" for line in finding.todo.splitlines()]
        raise MissingError(
            "the hosts cannot carry the lab; nothing was changed",
            where=lab.source,
            detail="\n".join(lines),
            hint="`vxlab check LAB` shows everything that was looked at",
        )
    for finding in findings:
        if finding.ok is None:
            emit(Told(finding.host, f"{finding.title}: {finding.seen}"))


def examine(
    lab: Lab, nodes: Nodes
) -> tuple[list[hostcheck.HostFinding], dict[str, hostcheck.Facts]]:
    """What there is to say about the hosts before anything is changed on them."""

    def look(node: RemoteNode) -> hostcheck.Facts:
        node.look_up()
        output = node.script(hostcheck.program(lab, lab.node(node.name)))
        return _parsed(node, hostcheck.parse, output)

    facts = _each(nodes, look)
    owned = {name: node.ledger.owned() for name, node in nodes.items()}
    return hostcheck.judge(lab, facts, owned, now=time.time()), facts


def _parsed(node: RemoteNode, parse: Callable[[str], T], output: str) -> T:
    try:
        return parse(output)
    except hostcheck.FactsError as error:
        raise OperationError(
            "what the host says of itself makes no sense",
            where=node.name,
            detail=f"{error}\n{output[-500:]}".strip(),
        ) from None


def _reach(site: Site, facts: Mapping[str, hostcheck.Facts], nodes: Nodes, emit: Emit) -> None:
    """Send packets from host to host as the lab will; a lab that runs has proven its own way.

    Raises:
        MissingError: what one host sends does not arrive at another.
    """
    lab = site.lab
    if all(node.ledger.entries for node in nodes.values()):
        return
    token = secrets.token_hex(8)
    # An etcd in the journal need not have been started before the connection broke.
    open_ports = facts[lab.etcd.node].sockets
    serve = not any((s.protocol, s.port) == ("tcp", lab.etcd.port) for s in open_ports)

    def try_it(node: RemoteNode) -> hostcheck.Reach:
        program = hostcheck.reach_program(
            lab, lab.node(node.name), site.busybox, token, serve=serve
        )
        return _parsed(node, hostcheck.parse_reach, node.script(program))

    emit(Preparing("sending packets from host to host"))
    _judge(lab, hostcheck.judge_reach(lab, facts, _each(nodes, try_it)), emit)


# --- teardown -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a host at teardown."""

    host: str
    existed: bool  # something of the lab was there
    error: VxlabError | None = None  # why something may remain


def down(lab: str, hosts: Mapping[str, str], login: Login, *, purge: bool = False) -> list[Taken]:
    """Take the lab away from every host that can be reached, by the journal that the host keeps.

    Args:
        lab: its name.
        hosts: where they are, by node.
        login: how to get into them.
        purge: remove the programs that travelled there, too.
    """

    def one(node: RemoteNode | VxlabError, name: str) -> Taken:
        if isinstance(node, VxlabError):
            return Taken(name, existed=False, error=node)
        try:
            return _take_away(node, purge=purge)
        except VxlabError as error:
            return Taken(name, existed=True, error=error)
        finally:
            node.close()

    found = connect(lab, hosts, login)
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(one, found.values(), found))


def _take_away(node: RemoteNode, *, purge: bool) -> Taken:
    node.take("vxlab teardown", make=False)
    book = node.look_up()
    undo = outlasting(book.undo())
    failed = node.take_back(undo, lambda op: None) if undo else []
    if failed:
        return Taken(node.name, existed=True, error=together(failed))
    node.script(ledger.remove(node.lab) + (cargo.purge() if purge else ""))
    return Taken(node.name, existed=bool(book.entries))
