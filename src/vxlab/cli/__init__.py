"""The command line. One module per command, loaded when it is called; ``--help`` loads none."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any

import click

from vxlab import __version__
from vxlab.errors import UsageError, VxlabError

#: Command -> (section, help line). The module of the same name holds a click command `command`.
COMMANDS = {
    "up": ("Build", "Build a lab, or repair what drifted."),
    "verify": ("Build", "Prove that the overlay works, with the evidence."),
    "teardown": ("Build", "Take a lab away, all of it."),
    "status": ("Look", "What is up, and what differs from the lab."),
    "ls": ("Look", "List the labs."),
    "shell": ("Look", "Open a shell in a node or container."),
    "exec": ("Look", "Run a command in a node or container."),
    "logs": ("Look", "Show the log of etcd or flannel."),
    "filter": ("Look", "The tcpdump filter for an address inside VXLAN, explained."),
    "capture": ("Look", "Show packets at any hops at once, or write them for Wireshark."),
    "demo": ("Learn", "Give the talk on real nodes, with its failures."),
    "trace": ("Look", "Follow a packet through every hop, there and back."),
    "explain": ("Learn", "Explain a step or a thing, in the lab that is up."),
    "export": ("Learn", "Write the lab as bash scripts for fresh hosts."),
    "quiz": ("Learn", "Ten questions about the lab that is up."),
    "check": ("This machine", "Try what this machine can do, and say what is missing."),
    "install": ("This machine", "Get etcd, flanneld and busybox."),
    "schema": ("This machine", "Print the lab file's JSON schema, for editors."),
    "completion": ("This machine", "Print the shell's completion script."),
}


class _ReaderGoneError(Exception):
    """Whoever read the output has gone, such as ``head``."""


class _Commands(click.Group):
    """A group that knows its commands by the table, and loads the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"vxlab.cli.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean `vxlab {near[0]}`?" if near else "see `vxlab --help`"
            raise UsageError(f"there is no command {name!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # click would end with 1, which is a failed check's exit code.
            raise _ReaderGoneError from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(section for section, _ in COMMANDS.values()):
            rows = [(name, text) for name, (s, text) in COMMANDS.items() if s == section]
            with formatter.section(section):
                formatter.write_dl(rows, col_max=12)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", prog_name="vxlab")
def cli() -> None:
    """Build, check and explain a VXLAN/flannel overlay: real etcd and flanneld, no root needed."""


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run vxlab; every error becomes a message and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        code = cli.main(prog_name="vxlab", standalone_mode=False)
    except VxlabError as problem:
        from vxlab.report import text

        text.error(problem)
        if "--json" in sys.argv:  # a program reads stdout: it gets a document in any case
            text.dump(problem.as_json())
        code = problem.exit_code
    except click.exceptions.ClickException as problem:
        problem.show()
        code = UsageError.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        print("stopped; `vxlab up` goes on, `vxlab teardown` takes it away", file=sys.stderr)
        code = 130
    except _ReaderGoneError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code if isinstance(code, int) else 0)
