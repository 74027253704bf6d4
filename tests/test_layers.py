"""The architecture: imports go down, each foreign library has one door, no module is long.

The table is ARCHITECTURE.md's. A module that is not in it fails: decide where it belongs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vxlab

SOURCE = Path(vxlab.__file__).parent

#: Layer of every module, or of all modules of a package.
LAYERS = (
    ("__init__", 0),
    ("errors", 0),
    ("mtu", 0),
    ("lab", 0),
    ("labfile", 0),
    ("state", 0),
    ("packet", 0),
    ("ops", 1),
    ("steps", 2),
    ("checks", 2),
    ("hostcheck", 2),
    ("lessons", 2),
    ("quiz", 2),
    ("rehearsal", 2),
    ("script", 3),
    ("netlink", 3),
    ("ssh", 3),
    ("etcd", 3),
    ("journal", 3),
    ("namespaces", 3),
    ("probe", 3),
    ("sniff", 3),
    ("binaries", 3),
    ("certificates", 3),
    ("hostprobe", 3),
    ("preflight", 3),
    ("nodes", 4),
    ("engine", 5),
    ("trace", 5),
    ("report", 6),
    ("cli", 7),
    ("__main__", 7),
)

#: What lies between the layers and decides or explains must not know the machine it runs on.
PURE = 2
#: Modules that reach out of the process; layers up to `PURE` import none of them.
REACHING = {"asyncio", "fcntl", "multiprocessing", "select", "shutil", "signal", "socket"}
REACHING |= {"ctypes", "http", "os", "subprocess", "tempfile", "threading", "time", "urllib"}

#: Foreign library -> the only modules that may import it.
DOORS = {
    "pyroute2": {"netlink"},
    "etcd3": {"etcd"},
    "paramiko": {"ssh"},
    "cryptography": {"certificates", "ssh"},
    "rich": {"report"},
    "click": {"cli"},
    "yaml": {"labfile"},
    "msgspec": {"labfile"},
}

MOST_LINES = 400


def name_of(path: Path) -> str:
    """``steps.veth``, ``steps.__init__`` or ``lab``."""
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}
EVERY = pytest.mark.parametrize("name", MODULES)


def belongs(name: str, entry: str) -> bool:
    return name == entry or name.startswith(f"{entry}.")


def layer(name: str) -> int:
    """The layer of a module; a module that no entry of the table covers has none."""
    found = [number for entry, number in LAYERS if belongs(name, entry)]
    assert len(found) == 1, f"{name} is in the table {len(found)} times, not once"
    return found[0]


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """The module of vxlab that an imported name is, or is in; None for foreign ones."""
    package, _, rest = name.partition(".")
    if package != "vxlab":
        return None
    while rest:
        for module in (rest, f"{rest}.__init__"):
            if module in MODULES:
                return module
        rest = rest.rpartition(".")[0]
    return "__init__"


@EVERY
def test_imports_go_down(name: str) -> None:
    """A module imports from its own layer and those below, also inside functions."""
    mine = layer(name)
    upward = [
        f"{name} ({mine}) imports {module} ({layer(module)})"
        for module in map(own, imports(MODULES[name]))
        if module is not None and layer(module) > mine
    ]
    assert upward == []


@EVERY
def test_foreign_libraries_have_one_door(name: str) -> None:
    """Who wants to talk to netlink, etcd or a terminal goes through the module that does."""
    foreign = {module.partition(".")[0] for module in imports(MODULES[name])}
    trespassing = [
        library
        for library in sorted(foreign & set(DOORS))
        if not any(belongs(name, door) for door in DOORS[library])
    ]
    assert trespassing == []


@EVERY
def test_no_other_library_is_used(name: str) -> None:
    """Only what pyproject.toml declares is imported, and the standard library."""
    roots = {module.partition(".")[0] for module in imports(MODULES[name])}
    assert roots - set(sys.stdlib_module_names) - set(DOORS) - {"vxlab"} == set()


#: Reads and writes the lab file's text, which is what `load` is for.
READS_FILES = {"labfile.__init__"}
LOWER = [
    name
    for name in MODULES
    if name not in READS_FILES and any(belongs(name, e) for e, number in LAYERS if number <= PURE)
]


@pytest.mark.parametrize("name", LOWER)
def test_the_lower_layers_are_pure(name: str) -> None:
    """Labs, states, operations, steps and checks do no I/O: no process, socket, clock or file."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    called = {
        call.func.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }
    roots = {module.partition(".")[0] for module in imports(MODULES[name])}
    assert (roots & REACHING, called & {"open", "print", "input"}) == (set(), set())


@EVERY
def test_no_module_is_long(name: str) -> None:
    """What does not fit on some screens has more than one subject."""
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES


@EVERY
def test_every_module_says_what_it_is(name: str) -> None:
    """The first thing in every file tells what the module is for."""
    assert ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8")))


def test_names_are_of_the_field() -> None:
    """No class is called after a role that any class could have."""
    vague = ("Manager", "Factory", "Helper", "Utils", "Util")
    found = [
        f"{name}.{node.name}"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith(vague)
    ]
    assert found == []
