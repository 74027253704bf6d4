"""``vxlab demo``: the talk, stage by stage, on real nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import click

from vxlab.cli import building, choose
from vxlab.journal import LabDirectory
from vxlab.report import text

if TYPE_CHECKING:
    from vxlab.engine.walk import Opened
    from vxlab.lab import Lab

_KEYS = "Enter runs it · s shell · q quit · ? help"
_HELP = """\
  Enter  run this stage, and go on to the next
  s      open a shell in a node or container; `exit` comes back here
  q      quit; the lab is kept as it is, `vxlab up` builds the rest
  ?      this help"""
_DELAY = 2.0  # seconds between stages of a recording


class _QuitError(Exception):
    """The person has seen enough."""


@click.command("demo")
@click.argument("lab", required=False, shell_complete=choose.complete_lab)
@click.option("--auto", is_flag=True, help="No keys: go on by itself, for a recording.")
@click.option(
    "--delay",
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="How long --auto waits before each stage; default: 2, without a terminal 0.",
)
def command(lab: str | None, auto: bool, delay: float | None) -> None:
    """Give the talk on real nodes, with its failures (LAB: a lab file; default: the talk's).

    Each stage tells what is about to happen, shows the commands, runs them and shows what can be
    seen. What the talk expects, failing pings among it, is checked: where reality differs the demo
    stops with exit code 1. At the end it is an ordinary lab.
    """
    from vxlab.engine.walk import Differs, Opened, cast_of, refuse_existing, walk
    from vxlab.report.walk import show

    wanted = building.wanted_lab(lab, None)
    cast_of(wanted)
    directory = LabDirectory(wanted.name)
    refuse_existing(directory)
    site = building.local_site(wanted, directory, building.programs(verbose=False))
    pauses = _Pauses(wanted, directory, auto=auto, delay=delay)
    differs: Differs | None = None
    with closing(walk(site, directory)) as steps:
        try:
            for step in steps:
                show(step)
                if isinstance(step, Opened):
                    pauses.before(step)
                elif isinstance(step, Differs):
                    differs = step
        except _QuitError:
            _left(wanted, pauses.built)
            return
    if differs is not None:
        text.say(f"  The lab {wanted.name} is kept: look around with `vxlab shell`;")
        text.say(f"  `vxlab up` builds the rest, `vxlab teardown {wanted.name}` takes it away.")
        sys.exit(1)
    _ended(wanted)


def _ended(lab: Lab) -> None:
    text.say()
    text.say(f"That was the talk. {lab.name} is now an ordinary lab, as `vxlab up` builds it.")
    text.say("next: vxlab verify · vxlab status · vxlab explain · vxlab quiz · vxlab teardown")


def _left(lab: Lab, built: str) -> None:
    if built:
        text.say(f"{lab.name} is kept as it is after {built}")
        text.say("next: vxlab up goes on · vxlab shell · vxlab teardown")
    else:
        text.say("nothing was built")


class _Pauses:
    """What happens between two stages: keys, seconds, or nothing.

    Args:
        lab: the demo's.
        directory: the lab's, for shells.
        auto: no keys are asked for.
        delay: seconds; None for the usual ones.
    """

    def __init__(
        self, lab: Lab, directory: LabDirectory, *, auto: bool, delay: float | None
    ) -> None:
        self._lab, self._directory = lab, directory
        terminal = sys.stdout.isatty()
        self._keys = terminal and sys.stdin.isatty() and not auto
        self._delay = (_DELAY if terminal else 0.0) if delay is None else delay
        self.built = ""  # the last stage that is through
        self._places = [*(c.name for c in lab.containers), *(n.name for n in lab.nodes)]
        self._containers = False

    def before(self, stage: Opened) -> None:
        """Wait until the stage may begin.

        Raises:
            _QuitError: the person wants no more.
        """
        if self._keys:
            self._ask()
        else:
            time.sleep(self._delay)
        self.built = stage.stage.name
        self._containers = self._containers or "container" in stage.stage.steps

    def _ask(self) -> None:
        while True:
            text.say()
            key = _key(text.style(f"  {_KEYS} ", "dim"))
            if key in ("\r", "\n", " "):
                return
            if key in ("q", "Q", "\x04", ""):
                raise _QuitError
            text.say()
            if key == "?":
                text.say(_HELP)
            elif key in ("s", "S"):
                self._shell()

    def _shell(self) -> None:
        """A shell in a node or container, as a process of its own."""
        if not self.built:
            text.say("  nothing is built yet: a shell needs a node")
            return
        places = self._places if self._containers else [n.name for n in self._lab.nodes]
        text.say(f"  where? {', '.join(places[:8])}{' ...' if len(places) > 8 else ''}")
        try:
            place = input(f"  [{places[0]}] ").strip() or places[0]
        except EOFError:
            return
        command = [sys.executable, "-m", "vxlab", "shell", place, "--lab", self._lab.name]
        home = self._directory.path.parent.parent
        with _terminal_lent():
            subprocess.run(command, env={**os.environ, "VXLAB_HOME": str(home)}, check=False)
        text.say(text.style("  back in the demo", "dim"))


@contextmanager
def _terminal_lent() -> Iterator[None]:
    """Another program has the terminal meanwhile, Ctrl-C included; then it is as it was.

    A shell in a PID namespace of its own takes the terminal and cannot give it back: it does not
    see the process group that had it before.
    """
    import termios

    stdin = sys.stdin.fileno()
    modes = termios.tcgetattr(stdin)
    interrupt = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        output = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # or taking it back would stop us
        os.tcsetpgrp(stdin, os.getpgrp())
        termios.tcsetattr(stdin, termios.TCSADRAIN, modes)
        signal.signal(signal.SIGTTOU, output)
        signal.signal(signal.SIGINT, interrupt)


def _key(prompt: str) -> str:
    """One key, without Enter; the prompt goes away when it is pressed. Empty: no more input."""
    import termios
    import tty

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    dumb = os.environ.get("TERM") in (None, "", "dumb")
    try:
        tty.setcbreak(stdin, termios.TCSAFLUSH)  # what was typed during the stage does not count
        print(prompt, end="", flush=True)
        return os.read(stdin, 1).decode(errors="replace")
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        # The empty line above the prompt goes, too; a dumb terminal can take nothing back.
        print("" if dumb else "\r\x1b[K\x1b[A", end="\n" if dumb else "", flush=True)
