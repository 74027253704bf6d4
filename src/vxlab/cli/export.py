"""``vxlab export``: the lab as bash scripts, to be read, handed out and run without vxlab."""

from __future__ import annotations

from pathlib import Path

import click

from vxlab.cli import choose
from vxlab.errors import UsageError
from vxlab.lab import Lab
from vxlab.report import text


@click.command("export")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="The directory to write; default: the lab's name and `-scripts`.",
)
@click.option("--nodes", type=click.IntRange(1, 1000), help="How many nodes the talk's lab gets.")
@click.option("--force", is_flag=True, help="Write into a directory that is there already.")
def command(lab: str | None, output: Path | None, nodes: int | None, force: bool) -> None:
    """Write LAB (a lab file, or a lab's name; default: the talk) as bash scripts.

    One per node, in the talk's order and with its reasons, to be run as root on fresh hosts; and
    one per node that takes it away again.
    """
    from vxlab.cli.building import wanted_lab
    from vxlab.journal import LabDirectory
    from vxlab.rehearsal import known, scripts

    wanted = wanted_lab(lab, nodes)
    if wanted.remote and LabDirectory(wanted.name).exists():
        from vxlab.engine.running import stored_lab

        wanted = known(wanted, stored_lab(LabDirectory(wanted.name)))
    _check_names(wanted)
    target = output or Path(f"{wanted.name}-scripts")
    files = scripts(wanted)
    _write(target, files, force=force)
    text.say(f"{wanted.name} is in {target}: {text.plural(len(files), 'file')}")
    if wanted.tls:
        text.tell("the lab's etcd has TLS; the scripts use plain http, as the talk does")
    text.say(f"next: read {target / 'README.txt'}")


def _check_names(lab: Lab) -> None:
    names = {node.name for node in lab.nodes}
    for name in sorted(names):
        if f"{name}-teardown" in names:
            raise UsageError(
                f"the scripts of {name} and {name}-teardown would have the same name",
                where=lab.source,
                hint="give one of these nodes another name",
            )


def _write(target: Path, files: dict[str, str], *, force: bool) -> None:
    """Write the files; nothing of another kind in the directory is touched.

    Raises:
        UsageError: the directory is there, or cannot be written.
    """
    try:
        if force:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.mkdir(parents=True)
        for name, words in files.items():
            path = target / name
            path.unlink(missing_ok=True)  # a link there is replaced, not followed
            path.write_text(words, encoding="utf-8")
            path.chmod(0o755 if name.endswith(".sh") else 0o644)
    except FileExistsError:
        hint = "`--force` writes into it, `-o DIR` elsewhere"
        raise UsageError(f"{target} is there already", hint=hint) from None
    except OSError as error:
        said = error.strerror or str(error)
        raise UsageError("the scripts cannot be written", where=str(target), detail=said) from None
