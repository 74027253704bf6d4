"""What `up`, `demo` and `export` begin with: which lab is wanted, and the programs for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vxlab.cli import choose
from vxlab.errors import UsageError
from vxlab.journal import LabDirectory
from vxlab.lab import Lab
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.binaries import Binaries
    from vxlab.nodes.cargo import Cargo
    from vxlab.steps.site import Site


def wanted_lab(lab: str | None, nodes: int | None) -> Lab:
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


def programs(*, verbose: bool) -> Binaries:
    from vxlab import binaries
    from vxlab.errors import MissingError

    try:
        return binaries.find(text.tell if verbose else lambda line: None)
    except MissingError:
        return binaries.install(text.tell)


def local_site(lab: Lab, directory: LabDirectory, found: Binaries) -> Site:
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


def cargo(found: Binaries) -> Cargo:
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
