"""``vxlab up``: build a lab, continue one, or repair what drifted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vxlab.cli import choose
from vxlab.cli.login import accept_new_option, login
from vxlab.errors import UsageError
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.binaries import Binaries
    from vxlab.engine.up import Result
    from vxlab.nodes.cargo import Cargo
    from vxlab.report.progress import Progress
    from vxlab.steps.site import Site


@click.command("up")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@accept_new_option
@click.option("--nodes", type=click.IntRange(1, 1000), help="How many nodes the talk's lab gets.")
@click.option("--to", metavar="STEP", help="Stop after this step; `vxlab up` goes on.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Print every operation.")
def command(
    lab: str | None,
    nodes: int | None,
    to: str | None,
    as_json: bool,
    verbose: bool,
    accept_new: bool,
) -> None:
    """Build LAB (a lab file, or a lab's name; default: the talk's two nodes).

    On a lab that is up it changes nothing and says so; what drifted is repaired and told.
    """
    from vxlab.report.progress import Progress

    wanted = _lab(lab, nodes)
    _check_step(wanted, to)
    directory = LabDirectory(wanted.name)
    progress = Progress(wanted, quiet=as_json, verbose=verbose)
    with directory.locked("vxlab up", create=True), progress:
        result = _up(wanted, directory, progress, to, accept_new=accept_new, verbose=verbose)
    if as_json:
        text.dump(_as_json(result, progress))
    else:
        _tell(result, to)


def _check_step(lab: Lab, to: str | None) -> None:
    from vxlab.steps import steps_of

    names = [step.name for step in steps_of(lab)]
    if to is not None and to not in names:
        raise UsageError(f"there is no step {to!r}", hint=f"the steps are {', '.join(names)}")


def _up(
    lab: Lab,
    directory: LabDirectory,
    progress: Progress,
    to: str | None,
    *,
    accept_new: bool,
    verbose: bool,
) -> Result:
    """Build the lab where it belongs: on this machine or on its hosts."""
    if lab.remote:
        from vxlab.engine import hosts

        def goods() -> Cargo:
            return _cargo(_programs(verbose=verbose))

        return hosts.up(lab, directory, goods, login(accept_new=accept_new), progress, to)
    from vxlab.engine import up

    return up.up(_site(lab, directory, _programs(verbose=verbose)), directory, progress, to)


def _lab(lab: str | None, nodes: int | None) -> Lab:
    from vxlab import labfile

    if lab is not None and choose.looks_like_file(lab):
        if nodes is not None:
            raise UsageError("--nodes scales the talk's lab, not a lab file")
        return labfile.load(Path(lab))
    from vxlab.engine.running import stored_lab

    name = choose.directory(lab).name if lab is not None else choose.DEFAULT
    old = stored_lab(LabDirectory(name)) if LabDirectory(name).exists() else None
    if old is not None and nodes in (None, len(old.nodes)):
        return old
    if lab is not None and old is None and name != choose.DEFAULT:
        raise UsageError(
            f"there is no lab called {name!r}", hint="give the lab file: `vxlab up LAB.yaml`"
        )
    return labfile.default(nodes or 2, name)


def _programs(*, verbose: bool) -> Binaries:
    from vxlab import binaries
    from vxlab.errors import MissingError

    try:
        return binaries.find(text.tell if verbose else lambda line: None)
    except MissingError:
        return binaries.install(text.tell)


def _site(lab: Lab, directory: LabDirectory, found: Binaries) -> Site:
    from vxlab.binaries import rootfs
    from vxlab.binaries.cache import directory as cache
    from vxlab.steps.site import Site

    return Site(
        lab=lab,
        directory=str(directory.path),
        etcd=str(found.etcd.path),
        flanneld=str(found.flanneld.path),
        busybox=str(found.busybox.path),
        programs=str(rootfs.template(found.busybox.path, cache()) / "bin"),
    )


def _cargo(found: Binaries) -> Cargo:
    from vxlab.binaries.digests import digests
    from vxlab.binaries.programs import which
    from vxlab.errors import MissingError
    from vxlab.hostprobe import bundle
    from vxlab.nodes.cargo import Cargo

    if found.etcdctl is None:
        hint = "install etcdctl of the same version, as `vxlab install` does"
        raise MissingError("there is no etcdctl beside etcd; real hosts need it", hint=hint)
    programs = (found.etcd, found.etcdctl, found.flanneld, found.busybox)
    files = {each.name: each.path for each in programs}
    tcpdump = which("tcpdump")
    if tcpdump is not None:  # for verify on hosts that have none
        files |= {path.name: path for path in bundle(tcpdump)}
    return Cargo(files, digests(files))


def _tell(result: Result, to: str | None) -> None:
    lab = result.lab
    spent = text.seconds(result.seconds)
    if to is not None:
        text.say(f"{lab.name} is built up to the step {to} ({spent}); `vxlab up` goes on")
        return
    if not result.changes:
        text.say(f"{lab.name} is up and as wanted; nothing changed ({spent})")
        return
    if result.fresh:
        size = f"{text.plural(len(lab.nodes), 'node')}, "
        size += text.plural(len(lab.containers), "container")
        text.say(f"{lab.name} is up: {size} in {spent}")
        text.say("next: vxlab verify · vxlab status · vxlab shell · vxlab teardown")
        return
    rows = [(c.node, c.step, c.reason) for c in result.changes if c.reason]
    text.say(f"{lab.name} is up; repaired with {text.plural(len(rows), 'change')} in {spent}:")
    text.reasons(rows)


def _as_json(result: Result, progress: Progress) -> dict[str, object]:
    return {
        "lab": result.lab.name,
        "fresh": result.fresh,
        "seconds": round(result.seconds, 4),
        "steps": [row.as_json() for row in progress.rows.values()],
        "changes": [
            {"step": c.step, "node": c.node, "reason": c.reason, "command": str(c.op)}
            for c in result.changes
        ],
    }
