"""The README tells the truth: its commands are run, and print what it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from conftest import Vxlab

README = Path(__file__).parents[1] / "README.md"

#: What differs from run to run: times, MACs, the subnets that flannel picks, counts of changes.
_VARIES = (
    (r"\d+(\.\d)? m?s\b", r"\\d+(\\.\\d)? m?s"),
    (r"([0-9a-f]{2}\\:){5}[0-9a-f]{2}", "([0-9a-f]{2}:){5}[0-9a-f]{2}"),
    (r"10\\\.5\\\.\d+\\\.", r"10\\.5\\.\\d+\\."),
)


def session() -> list[tuple[str, list[str]]]:
    """The README's console block: commands and the output shown for each."""
    block = re.search(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    commands: list[tuple[str, list[str]]] = []
    for line in block.group(1).splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    return commands


def pattern(shown: list[str]) -> str:
    """The shown output as a regular expression; ``...`` stands for any lines."""
    parts = []
    for line in shown:
        if line == "...":
            parts.append(r"(?:.*\n)*?")
            continue
        text = re.escape(line).replace(r"\ ", " ").replace(":", r"\:")
        for varying, wanted in _VARIES:
            text = re.sub(varying, wanted, text)
        parts.append(re.sub(" +", " +", text) + r" *\n")
    return "".join(parts)


@pytest.mark.lab
def test_the_readmes_session_runs_as_it_is_shown(vxlab: Vxlab) -> None:
    """Every command of the README's session exists and prints what the README shows."""
    commands = session()
    assert len(commands) >= 6
    for command, shown in commands:
        program, *words = shlex.split(command)
        assert program == "vxlab"
        printed = vxlab(*words).stdout
        assert re.fullmatch(pattern(shown), printed), f"{command} printed:\n{printed}"


def test_the_readme_names_every_exit_code() -> None:
    """The exit codes of the error tree are the README's."""
    import vxlab.errors as errors
    from vxlab.labfile import LabFileError

    kinds = [c for c in vars(errors).values() if isinstance(c, type)]
    codes = {c.exit_code for c in [*kinds, LabFileError] if issubclass(c, errors.VxlabError)}
    codes |= {0, 1, 2, 130}
    section = README.read_text().split("## Exit codes")[1].split("##")[0]
    assert {int(n) for n in re.findall(r"(?:^|· )(\d+) ", section, re.MULTILINE)} == codes
