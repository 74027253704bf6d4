"""``vxlab teardown``: take a lab away, all of it, also after a crash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vxlab import journal
from vxlab.cli import choose
from vxlab.cli.login import accept_new_option, login
from vxlab.errors import JournalError, VxlabError
from vxlab.journal import LabDirectory
from vxlab.report import text


@click.command("teardown")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@click.option("--all", "every", is_flag=True, help="Take all labs away.")
@click.option("--force", is_flag=True, help="Also where the lab's journal cannot be read.")
@click.option("--purge", is_flag=True, help="Also the programs that were sent to real hosts.")
@accept_new_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    lab: str | None, every: bool, force: bool, purge: bool, as_json: bool, accept_new: bool
) -> None:
    """Take LAB away (a name or a lab file; default: the only lab there is).

    A lab that is not there is not an error. Real hosts keep their own journal: with the lab file
    they can be cleaned from any machine. A host that cannot be reached is told, the others are
    cleaned, and a later teardown goes on.
    """
    targets = [LabDirectory(n) for n in journal.names()] if every else [choose.directory(lab)]
    report: list[dict[str, Any]] = []
    errors: list[VxlabError] = []
    for directory in targets:
        with directory.locked("vxlab teardown"):
            hosts = _hosts_of(directory, lab, force=force)
            if hosts:
                row, failed = _hosts(directory, hosts, accept_new=accept_new, purge=purge)
                errors += failed
            else:
                row, failed = _local(directory, force=force), []
        report.append(row)
        if not as_json and not failed:
            words = "is gone" if row["existed"] else "is not there; nothing to do"
            text.say(f"{directory.name} {words}")
    if as_json:
        text.dump(report)
    elif not targets:
        text.say("there is no lab; nothing to do")
    if errors:
        from vxlab.nodes.remote import together

        raise together(errors)


def _hosts_of(directory: LabDirectory, named: str | None, *, force: bool) -> dict[str, str]:
    """Where a lab's real hosts are: as its journal tells, else its file. None: it is local."""
    from vxlab.nodes.remote import targets

    try:
        known = directory.hosts() if directory.exists() else None
    except JournalError:
        if not force:
            raise
        known = None
    if known is None and named is not None and choose.looks_like_file(named):
        from vxlab import labfile

        lab = labfile.load(Path(named))
        return targets(lab) if lab.remote else {}
    return known or {}


def _local(directory: LabDirectory, *, force: bool) -> dict[str, Any]:
    from vxlab.engine.down import down

    result = down(directory, force=force)
    return {"lab": directory.name, "existed": result.existed, "ran": result.ran}


def _hosts(
    directory: LabDirectory, where: dict[str, str], *, accept_new: bool, purge: bool
) -> tuple[dict[str, Any], list[VxlabError]]:
    from vxlab.engine import hosts

    name = directory.name
    text.doing(f"taking {name} off {text.plural(len(where), 'host')}")
    taken = hosts.down(name, where, login(accept_new=accept_new), purge=purge)
    text.doing("")
    failed = []
    for host in taken:
        if host.error is not None:
            host.error.hint = (
                f"{host.error.hint}\n".lstrip() + "then run `vxlab teardown` again: it goes on"
            )
            failed.append(host.error)
    if not failed and directory.exists():
        directory.remove()
    if failed:
        done = [host.host for host in taken if host.error is None]
        text.tell(f"{name} is gone from {', '.join(done) or 'no host'}; what follows remains")
    rows = [
        {"host": t.host, "existed": t.existed, "error": t.error.as_json() if t.error else None}
        for t in taken
    ]
    existed = any(host.existed for host in taken)
    return {"lab": name, "existed": existed, "ran": existed, "hosts": rows}, failed
