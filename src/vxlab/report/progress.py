"""The progress of `up`: a live list of steps on a terminal, one line per step elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, Self

from vxlab.engine.events import Event, OpDone, Preparing, StepFinished, StepStarted, Told
from vxlab.lab import Lab
from vxlab.report.text import coloured, doing, plural, seconds, tell
from vxlab.steps import steps_of


class _Row:
    """What is known of one step: how many nodes are through, since when, how long it took."""

    def __init__(self, name: str, title: str, wanted: int) -> None:
        self.name, self.title, self.wanted = name, title, wanted
        self.begun: float | None = None
        self.ended = 0.0
        self.finished = 0
        self.changes = 0

    @property
    def done(self) -> bool:
        return self.finished >= self.wanted

    def seconds(self) -> float:
        if self.begun is None:
            return 0.0
        return (self.ended if self.done else time.monotonic()) - self.begun

    def as_json(self) -> dict[str, Any]:
        return {"step": self.name, "seconds": round(self.seconds(), 4), "changes": self.changes}


class Progress:
    """Listens to the engine. Nothing is shown, and no thread started, before the first event:

    an unprivileged user enters the lab's user namespace first, which a process may only do with a
    single thread.

    Args:
        lab: for the number of nodes.
        quiet: only collect, for ``--json``.
        verbose: print every operation as the command a person would type.
    """

    def __init__(self, lab: Lab, *, quiet: bool = False, verbose: bool = False) -> None:
        count = {"nodes": len(lab.nodes), "cables": len(lab.nodes)}
        self.rows = {s.name: _Row(s.name, s.title, count.get(s.on, 1)) for s in steps_of(lab)}
        self._quiet, self._verbose = quiet, verbose
        self._terminal = sys.stdout.isatty() and not quiet
        self._live: Any = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is None and not self._quiet:
            doing("")
        if self._live is not None:
            self._live.update(self._render(), refresh=True)
            self._live.stop()

    def __call__(self, event: Event) -> None:
        with self._lock:
            self._note(event)

    def _note(self, event: Event) -> None:
        if isinstance(event, Preparing):
            if not self._quiet:
                doing(event.text)
            return
        if self._terminal and self._live is None:
            doing("")
            self._start()
        match event:
            case StepStarted():
                row = self.rows[event.step]
                row.begun = row.begun or time.monotonic()
            case StepFinished():
                row = self.rows[event.step]
                row.finished += 1
                row.changes += event.changes
                row.ended = time.monotonic()
                if row.done and not self._terminal and not self._quiet and not self._verbose:
                    self._line(row)
            case OpDone() if self._verbose:
                self._print(f"{event.node:<10} {event.op}")
            case Told():
                self._print(f"{event.node}: {event.text}")

    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            tell(text)

    def _line(self, row: _Row) -> None:
        nodes = plural(row.wanted, "node")
        changes = plural(row.changes, "change") if row.changes else "as wanted"
        line = f"{row.name:<11} {row.title:<28} {nodes:<9} {changes:<12} {seconds(row.seconds())}"
        print(line, flush=True)

    # --- on a terminal --------------------------------------------------------------------------

    def _start(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(no_color=not coloured(sys.stdout), highlight=False)
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=12, transient=False
        )
        self._live.start()

    def _render(self) -> Any:
        from rich.table import Table

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=1)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        for row in self.rows.values():
            waiting = "[cyan]•[/]" if row.begun else "[dim]·[/]"
            sign = "[green]✔[/]" if row.done else waiting
            count = f"{row.finished}/{row.wanted}" if row.wanted > 1 else ""
            spent = seconds(row.seconds()) if row.begun else ""
            table.add_row(sign, row.name, row.title, count, spent)
        return table


class Download:
    """Progress bars of downloads, one per program, on a terminal; nothing elsewhere."""

    def __init__(self) -> None:
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, program: str, done: int, total: int) -> None:
        if not sys.stderr.isatty():
            return
        if self._bars is None:
            self._bars = self._start()
        if program not in self._tasks:
            self._tasks[program] = self._bars.add_task(program, total=total or None)
        self._bars.update(self._tasks[program], completed=done, total=total or None)

    @staticmethod
    def _start() -> Any:
        from rich import progress
        from rich.console import Console

        bars = progress.Progress(
            progress.TextColumn("{task.description:<9}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            console=Console(stderr=True, no_color=not coloured(sys.stderr)),
            transient=True,
        )
        bars.start()
        return bars
