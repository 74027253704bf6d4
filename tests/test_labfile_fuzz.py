"""No text makes the lab file's reader fail: it is a lab, or the user is told what is wrong."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vxlab import labfile
from vxlab.lab import UNKNOWN, Lab
from vxlab.labfile import LabFileError

VALIDATOR = jsonschema.Draft202012Validator(labfile.schema())
LABS = sorted((Path(__file__).parent.parent / "labs").glob("*.yaml"))
TEXTS = [path.read_text(encoding="utf-8") for path in LABS]

#: Pieces that YAML, numbers, addresses and names are made of, whole and broken.
PIECES = st.sampled_from(
    [
        *("name", "underlay", "overlay", "nodes", "etcd", "ipv6", "backend", "Type", "vxlan"),
        *("network", "mtu", "address", "containers", "subnet", "subnet_length", "node01"),
        *("ssh", "interface", "insecure", "me@host:22", "[::1]", "eth1", "@"),
        *(": ", ":", "\n", "\n  ", "\n    ", "\t", "- ", "? ", "[", "]", "{", "}", ", ", "#", " "),
        *("&a ", "*a", "<<", "!!set ", "!!binary ", "!x ", "%YAML 9.9\n", "---\n", "...\n"),
        *("|\n", ">-\n", '"', "'", "\\x", '"\\ud800"', '"\\UFFFFFFFF"', "\0", "\x85", "\ufeff"),
        *("10.5.0.0/16", "192.168.56.21", "0", "010", "-1", "0x1f", "1:30", "1_0", ".inf", "1e9"),
        *("9" * 5000, "on", "null", "~", "true", "2026-11-24", "=", "\ud800", "é", "💥"),
    ]
)

#: Values that a place in the file can hold, most of them wrong there.
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 70000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["vxlan", "host-gw", "udp", "node01", "node02", "container01", "eth0", "a"]),
    st.sampled_from(["h", "me@h", "h:22", "[::1]", "[::1]:22", "1.2.3", "eth1", "-x", "a@b@c"]),
    st.ip_addresses().map(str),
    st.ip_addresses(v=4, network="192.168.56.0/24").map(str),
    st.tuples(st.ip_addresses(v=4, network="10.5.0.0/16"), st.integers(0, 33)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    ),
    st.integers(0, 255).map(lambda n: f"10.5.{n}.0/24"),
    st.integers(0, 255).map(lambda n: f"10.5.{n}.0"),
    st.integers(1, 30).map(lambda n: f"10.0.0.0/{n}"),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def lab_or_problems(text: str) -> Lab | LabFileError:
    """What becomes of a text; anything but these two is the failure looked for."""
    try:
        return labfile.loads(text, "lab.yaml")
    except LabFileError as error:
        return error


def check(text: str) -> Lab | LabFileError:
    """A lab is consistent and can be stored, problems are readable and have a place."""
    result = lab_or_problems(text)
    if isinstance(result, LabFileError):
        assert result.problems
        lines = len(text.splitlines()) + 1
        assert [p for p in result.problems if not 1 <= p.line <= lines] == []
        assert [p for p in result.problems if not str(p).isprintable()] == []
        json.dumps(result.as_json())
        return result
    assert labfile.loads(labfile.dumps(result), "stored") == result
    addresses = [node.address for node in result.nodes if node.address != UNKNOWN]
    assert len(set(addresses)) == len(addresses)
    assert result.overlay_mtu >= 576 or (result.remote and result.overlay_mtu == 0)
    assert result.etcd_node in result.nodes
    assert {bool(node.ssh) for node in result.nodes} == {result.remote}
    if result.remote:
        assert [n for n in result.nodes if n.address == UNKNOWN and not n.interface] == []
        assert [a for a in addresses if a.network.overlaps(result.overlay.network)] == []
    else:
        assert [a for a in addresses if a.network != result.underlay.network] == []
        assert [n for n in result.nodes if n.interface] == []
        assert not result.etcd.insecure
    return result


@given(st.lists(PIECES, max_size=30).map("".join))
@settings(deadline=None)
def test_pieces_of_yaml(text: str) -> None:
    """YAML's own characters in any order."""
    check(text)


@given(st.text())
@settings(deadline=None)
def test_any_text(text: str) -> None:
    """Text that no one would call YAML."""
    check(text)


@given(st.sampled_from(TEXTS), st.data())
@settings(deadline=None)
def test_labs_with_pieces_put_in(text: str, data: st.DataObject) -> None:
    """Real lab files with a slip of the hand or two."""
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 10)))
        text = text[:start] + data.draw(PIECES) + text[end:]
    check(text)


@given(st.lists(PIECES, max_size=30).map("".join))
@settings(max_examples=50, deadline=None)
def test_pieces_of_yaml_without_libyaml(text: str) -> None:
    """PyYAML's own parser fails in other ways than libyaml, and no worse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(yaml, "CSafeLoader", raising=False)
        check(text)


@given(st.binary(max_size=60))
@settings(max_examples=50, deadline=None)
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """A file of bytes that may not even be text."""
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    problems: tuple[labfile.Problem, ...] = ()
    try:
        labfile.load(path)
    except LabFileError as error:
        problems = error.problems
    assert [problem for problem in problems if not str(problem).isprintable()] == []


def whole_lab() -> dict[str, Any]:
    """A lab file with every key in it."""
    lab = labfile.loads(
        "overlay: {subnet_min: 10.5.1.0, subnet_max: 10.5.255.0, backend: {Type: vxlan, VNI: 1,"
        " Port: 8472, DirectRouting: false, GBP: false, Learning: false, MTU: 1500}}\n"
        "nodes: {node01: {subnet: 10.5.73.0/24}, node02: , node03: {containers: 2}}",
        "lab.yaml",
    )
    document: dict[str, Any] = json.loads(labfile.dumps(lab))
    return document


def whole_lab_of_hosts() -> dict[str, Any]:
    """The same for real hosts."""
    document = whole_lab()
    document["underlay"] = {"network": "192.168.0.0/16", "mtu": 1500, "interface": "eth1"}
    document["etcd"]["insecure"] = True
    for name, node in document["nodes"].items():
        node.update(ssh=f"me@{name}:22", interface="eth1")
    return document


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every container in a document with every key or position in it."""
    found = []
    if isinstance(document, dict | list):
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        for key in keys:
            found.append((document, key))
            found.extend(places(document[key]))
    return found


@st.composite
def mutated_labs(draw: st.DrawFn) -> Any:
    """A whole lab with some values replaced, taken out, moved or put under another key."""
    document: Any = draw(st.sampled_from([whole_lab, whole_lab_of_hosts]))()
    for _ in range(draw(st.integers(0, 4))):
        found = places(document)
        if not found:
            break
        parent, key = draw(st.sampled_from(found))
        action = draw(st.sampled_from(["replace", "drop", "swap", "rename"]))
        other_parent, other_key = draw(st.sampled_from(found))
        if action == "replace":
            parent[key] = draw(VALUES)
        elif action == "drop":
            del parent[key]
        elif action == "swap":
            parent[key] = copy.deepcopy(other_parent[other_key])
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=8) | st.just(str(other_key)))] = parent.pop(key)
    return document


@given(mutated_labs(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_mutated_labs(document: Any, as_json: bool) -> None:
    """Well-formed files with wrong values; what is right for vxlab is right for the editor too."""
    text = json.dumps(document) if as_json else yaml.safe_dump(document, allow_unicode=True)
    if isinstance(check(text), Lab):
        assert [error.message for error in VALIDATOR.iter_errors(document)] == []


@given(mutated_labs())
@settings(max_examples=50, deadline=None)
def test_both_parsers_agree(document: Any) -> None:
    """With and without libyaml, the same lab or the same problems in the same lines."""
    text = yaml.safe_dump(document)
    with_libyaml = lab_or_problems(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(yaml, "CSafeLoader", raising=False)
        without = lab_or_problems(text)
    if isinstance(with_libyaml, LabFileError):
        assert isinstance(without, LabFileError)
        assert without.problems == with_libyaml.problems
    else:
        assert without == with_libyaml


@pytest.mark.parametrize("whole", [whole_lab, whole_lab_of_hosts])
def test_the_mutations_start_from_a_lab(whole: Callable[[], dict[str, Any]]) -> None:
    """Without a mutation there is nothing wrong, so what is reported comes from the mutations."""
    assert isinstance(check(json.dumps(whole())), Lab)


@pytest.mark.parametrize("seed", range(20))
def test_order_of_keys_does_not_matter(seed: int) -> None:
    """A mapping means the same in any order; nodes are named here, so that none moves."""
    document = whole_lab()
    shuffled = list(document.items())
    random.Random(seed).shuffle(shuffled)  # noqa: S311 - a test's order, not a secret
    again = labfile.loads(json.dumps(dict(shuffled)), "lab.yaml")
    assert again == labfile.loads(json.dumps(document), "lab.yaml")
