"""``vxlab ls``: all labs of this user."""

from __future__ import annotations

import click

from vxlab.report import text


@click.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(as_json: bool) -> None:
    """List the labs: up, down after a restart of this machine, or on real hosts."""
    from vxlab import journal
    from vxlab.engine.running import stored_lab
    from vxlab.errors import JournalError

    rows = []
    for name in journal.names():
        directory = journal.LabDirectory(name)
        try:
            record, lab = directory.world(), stored_lab(directory)
            state = "up" if record and record.alive() else "down"
            if lab is not None and lab.remote:
                state = "on hosts"  # `vxlab status` asks them
        except JournalError:
            lab, state = None, "damaged"
        nodes = len(lab.nodes) if lab else 0
        rows.append({"lab": name, "state": state, "nodes": nodes, "directory": str(directory.path)})
    if as_json:
        text.dump(rows)
    elif not rows:
        text.say("there is no lab; `vxlab up` builds one")
    else:
        cells = [[str(v) for v in row.values()] for row in rows]
        text.say(text.table(cells, header=["lab", "state", "nodes", "directory"], indent=""))
