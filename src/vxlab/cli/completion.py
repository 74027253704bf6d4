"""``vxlab completion``: what a shell needs to complete vxlab's commands."""

from __future__ import annotations

import click

from vxlab.report import text


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL.

    bash: eval "$(vxlab completion bash)" in ~/.bashrc; zsh alike; fish: vxlab completion fish
    into ~/.config/fish/completions/vxlab.fish.
    """
    from click.shell_completion import get_completion_class

    from vxlab.cli import cli

    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101
    text.say(completion(cli, {}, "vxlab", "_VXLAB_COMPLETE").source())
