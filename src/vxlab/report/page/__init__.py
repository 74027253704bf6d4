"""``vxlab trace --html``: one page that shows a packet moving through the lab, hop by hop.

The page holds everything it needs and asks the network for nothing; its own Content-Security-Policy
sees to that. What the lab says (names, a kernel's words) gets into it as text only: escaped in the
page, and through ``textContent`` in its script.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from vxlab import __version__
from vxlab.errors import JournalError
from vxlab.lab import Lab
from vxlab.report.journey import CLOCKS, verdict
from vxlab.report.page.journeys import Told
from vxlab.report.page.picture import Picture
from vxlab.report.text import plural
from vxlab.trace.journey import Trace


def write(path: Path, trace: Trace, lab: Lab, *, command: str) -> None:
    """Write the page; the file is there whole, or as it was before.

    Args:
        path: the file.
        trace: what was found.
        lab: the lab that it was found in.
        command: the command that found it, as one types it again.

    Raises:
        JournalError: the file cannot be written.
    """
    # What the kernel said may not be UTF-8, and came here with its bytes as lone surrogates.
    content = page(trace, lab, command=command).encode("utf-8", "replace")
    try:
        _replace(path, content)
    except OSError as error:
        raise JournalError(f"cannot write {path}: {error.strerror}") from None


def _replace(path: Path, content: bytes) -> None:
    if path.exists() and not path.is_file():  # a pipe or a terminal is written to, not replaced
        path.write_bytes(content)
        return
    target = path.resolve()
    descriptor, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.chmod(draft, 0o666 & ~_umask())
        os.replace(draft, target)
    except OSError:
        os.unlink(draft)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def page(trace: Trace, lab: Lab, *, command: str) -> str:
    """The page as text; see `write`."""
    style, script = _part("page.css"), _part("page.js")
    picture = Picture(trace, lab)
    told = Told(trace, lab, picture)
    tone = {True: "good", False: "bad", None: "warn"}[trace.ok]
    said = verdict(trace)
    target = str(trace.at or trace.dst)
    if trace.target == "gateway":
        target += " (its gateway)"
    words = {
        "policy": _policy(style, script),
        "title": f"{trace.source} → {target}",
        "lab": trace.lab,
        "source": str(trace.source),
        "src": trace.src,
        "target": target,
        "dst": trace.dst,
        "expected": trace.expected,
        "verdict": said[:1].upper() + said[1:],
        "tone": tone,
        "when": _when(trace),
        "command": command,
        "version": __version__,
    }
    parts = {
        "style": style,
        "script": script,
        "picture": picture.svg(),
        "reasons": "".join(f"<li>because {escape(reason)}</li>" for reason in told.why_lost()),
        "tables": told.tables(),
        "notes": "".join(f"<p>{escape(note)}</p>" for note in _notes(trace, told)),
        "data": _embedded(told.data()),
    }
    escaped = {name: escape(value) for name, value in words.items()}
    return Template(_part("page.html")).substitute(escaped | parts)


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and nothing runs or styles the page but what is written here."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _embedded(data: Any) -> str:
    """JSON in a script element, which no text in it can end, such as ``</script>``."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _when(trace: Trace) -> str:
    """When the first probe was sent, if that is known."""
    sent = [journey.probe.sent_ns for journey in trace.journeys if journey.probe.sent_ns]
    seen = [frame.ns for watched in trace.watched for frame in watched.frames[:1]]
    first = min(sent or seen, default=0)
    if not first:
        return "not known"
    moment = datetime.fromtimestamp(first // 1_000_000_000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _notes(trace: Trace, told: Told) -> Iterator[str]:
    """What has to be known to read the page right."""
    if not trace.one_clock:
        yield f"{CLOCKS[:1].upper()}{CLOCKS[1:]}."
    if trace.dropped:
        lost = [f"{w.hop} lost {plural(w.dropped, 'frame')}" for w in trace.watched if w.dropped]
        yield f"The captures lost frames: {', '.join(lost)}. What was not seen may have been there."
    for watched in trace.watched:
        if watched.error:
            yield f"{watched.hop} could not be watched: {watched.error}"
    if told.left_out:
        ways = plural(told.left_out, "more way")
        yield f"{ways} that packets went are not on this page; --json has all."
