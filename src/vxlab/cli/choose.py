"""Which lab a command is about: a file, a name, or the only one there is."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vxlab import journal
from vxlab.errors import UsageError
from vxlab.journal import LabDirectory

#: The name of the lab that `vxlab up` builds when it is given none.
DEFAULT = "talk"


def complete_lab(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """The labs that exist, and files, for the shell's completion."""
    names = [CompletionItem(n) for n in journal.names() if n.startswith(typed)]
    return [*names, CompletionItem(typed, type="file")]


def complete_place(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
    """The nodes and containers of the lab, for the shell's completion."""
    from vxlab.engine.running import stored_lab

    chosen = directory(ctx.params.get("lab"))
    lab = stored_lab(chosen) if chosen.exists() else None
    if lab is None:
        return []
    names = [*(node.name for node in lab.nodes), *(c.name for c in lab.containers)]
    return [CompletionItem(name) for name in names if name.startswith(typed)]


def looks_like_file(text: str) -> bool:
    return "/" in text or text.endswith((".yaml", ".yml", ".json")) or Path(text).is_file()


def directory(lab: str | None) -> LabDirectory:
    """The lab's directory, whether or not anything is in it.

    Args:
        lab: a lab's name or its file, or None for the only lab that exists.

    Raises:
        UsageError: several exist and none was named, or the name cannot be one.
        LabFileError: it is a file and the file is wrong.
    """
    if lab is None:
        names = journal.names()
        if len(names) > 1 and DEFAULT not in names:
            raise UsageError(f"which lab? There are {', '.join(names)}")
        return LabDirectory(names[0] if len(names) == 1 else DEFAULT)
    if looks_like_file(lab):
        from vxlab import labfile

        return LabDirectory(labfile.load(Path(lab)).name)
    if not journal.valid_name(lab):
        raise UsageError(
            f"{lab!r} is neither a lab file nor a lab's name",
            hint="a name has lowercase letters, digits and hyphens, at most 31",
        )
    return LabDirectory(lab)
