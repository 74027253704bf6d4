"""``vxlab up --dry-run``: what would be typed; that it works when it is typed; and no trace of it.

Golden cases in ``cases/rehearsal``: the commands of some labs, as they are printed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import talk
from conftest import Vxlab
from golden import agrees
from lablib import Home, cleaned
from vxlab import binaries, labfile
from vxlab.lab import Lab
from vxlab.ops import DelRoute
from vxlab.rehearsal import Command, known, rehearse
from vxlab.rehearsal.command import typed, word
from vxlab.script import PATH
from vxlab.state import State
from vxlab.steps.site import Site

SSH = """
name: ssh
nodes:
  node01: {ssh: alice@one.example, interface: eth1}
  node02: {ssh: two, address: 192.168.56.22}
"""
LABS = {
    "talk": "",
    "pinned": "nodes: {node01: {subnet: 10.5.7.0/24}, node02: {subnet: 10.5.8.0/24}}",
    "half-pinned": "nodes: {node01: {subnet: 10.5.1.0/24}, node02: {containers: 2}}",
    "three-containers": "nodes: {node01: {containers: 3}}",
    "host-gw": "overlay: {backend: {Type: host-gw}}",
    "small-subnets": "overlay: {subnet_length: 26}",
    "ssh": SSH,
    "ssh-insecure": f"{SSH}etcd: {{insecure: true}}",
}


def site(lab: Lab) -> Site:
    return Site(lab, "/home/me/labs/talk", "etcd", "flanneld", "busybox", "busybox")


def lab_of(name: str) -> Lab:
    return labfile.loads(LABS[name], "lab.yaml")


def shown(name: str) -> str:
    lines = []
    for each in rehearse(site(lab_of(name))):
        lines.append(f"===== {each.step} · {each.node}")
        for command in each.commands:
            lines += [f"# {command.note}"] if command.note else []
            lines += command.folded(100)
    return "\n".join(lines) + "\n"


# --- the commands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LABS)
def test_golden(name: str) -> None:
    """What would be typed for a lab is as reviewed."""
    agrees(f"rehearsal/{name}.txt", shown(name))


def test_pinned_subnets_are_exact() -> None:
    """Where the lab file tells the subnets nothing has to be found."""
    text = shown("pinned")
    assert "ip addr add 10.5.7.10/24 dev vethNS" in text
    assert "ip route add default via 10.5.8.1 dev vethNS" in text
    assert "FLANNEL_SUBNET" not in text


def test_what_stands_for_a_subnet_is_not_shown() -> None:
    """The free subnet that the plan is made with is nowhere in the commands."""
    for name in ("talk", "half-pinned"):
        assert "10.5.0." not in shown(name).replace("10.5.0.0/16", "")


def test_no_key_is_shown() -> None:
    """Of certificates and keys the places are told, and where they come from."""
    text = shown("ssh")
    assert "install -D -m 600 client-key.pem /var/lib/vxlab/ssh/tls/client-key.pem" in text
    assert "BEGIN" not in text


def test_up_to_a_step() -> None:
    """``--to`` ends the list, too."""
    assert rehearse(site(talk.TALK), to="etcd")[-1].step == "etcd"


def test_pending_is_what_drifted() -> None:
    """On a lab that is up only what is missing is typed, with the node's real addresses."""
    states = talk.states()
    states["node01"] = replace(states["node01"], keys=talk.keys())
    assert rehearse(talk.site(), states) == []
    broken = states["node02"]
    net = broken.inside["container02"]
    cut = replace(net, routes=tuple(r for r in net.routes if r.dst != "default"))
    states["node02"] = replace(broken, inside={"container02": cut})
    (only,) = rehearse(talk.site(), states)
    assert (only.step, only.node) == ("route", "node02")
    lease = broken.subnet_env
    assert lease is not None
    assert [str(c) for c in only.commands] == [
        f'nsenter -n -t "$PID" ip route add default via {lease.subnet.ip} dev vethNS'
    ]


def test_what_is_in_the_way_goes_first() -> None:
    """A wrong route is deleted before the right one is added, as `up` does."""
    states = talk.states()
    states["node01"] = replace(states["node01"], keys=talk.keys())
    node = states["node02"]
    net = node.inside["container02"]
    wrong = tuple(replace(r, via="10.5.2.99") if r.dst == "default" else r for r in net.routes)
    states["node02"] = replace(node, inside={"container02": replace(net, routes=wrong)})
    (only,) = rehearse(talk.site(), states)
    back = DelRoute(dst="default", via="10.5.2.99", dev="vethNS", ns="container02")
    assert str(only.commands[0]) == 'nsenter -n -t "$PID" ' + shlex.join(back.argv())
    assert len(only.commands) == 2


# --- words ----------------------------------------------------------------------------------------


def by_sh(text: str, **env: str) -> str:
    """A shell's own opinion of a word."""
    command = ["sh", "-c", f"printf %s {text}"]
    environment = {**os.environ, **env}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_a_word_is_one_word(text: str) -> None:
    """Whatever is in it, no part of it is the shell's."""
    assert shlex.split(word(text, {})) == [text]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10.5.0.1", "X"),
        ("--iface=10.5.0.1", "--iface=X"),
        ("http://10.5.0.1:2379,10.5.0.1", "http://X:2379,X"),
        ("it's 10.5.0.1 $HOME", "it's X $HOME"),
        ("10.5.0.10", "10.5.0.10"),
        ("110.5.0.1", "110.5.0.1"),
        ("10.5.0.1/24", "Y"),
    ],
)
def test_values_are_found_in_words(text: str, value: str) -> None:
    """What stands for a value becomes it, also within a word; longer numbers are others."""
    shell = word(text, {"10.5.0.1": "$A", "10.5.0.1/24": "$B"})
    assert by_sh(shell, A="X", B="Y") == value


def test_quotes_hold_blanks_together() -> None:
    """Words end at blanks outside of quotes only."""
    assert typed("""awk -F'[ /]+' '{print $1}' "a b"x""").words == (
        "awk",
        "-F'[ /]+'",
        "'{print $1}'",
        '"a b"x',
    )


@pytest.mark.parametrize("width", [20, 40, 80])
def test_folded_is_the_same_command(width: int) -> None:
    """A command in several lines has the words that it has in one."""
    for each in rehearse(site(lab_of("ssh"))):
        for command in each.commands:
            text = "\n".join(command.folded(width)).replace("\\\n", "")
            assert text.split() == str(command).split()


def test_the_last_word_is_never_lost() -> None:
    """A command may end with a word that usually has something after it."""
    assert Command(("ls", "sh")).folded(80) == ["ls sh"]


@pytest.mark.parametrize(
    ("length", "subnet", "containers"),
    [(24, "10.5.9.1/24", 2), (26, "10.5.9.65/26", 2), (20, "10.5.16.1/20", 260)],
)
def test_the_awk_line_is_right(length: int, subnet: str, containers: int, tmp_path: Path) -> None:
    """It finds the address that `up` gives, in subnets of every size."""
    lab = labfile.loads(
        f"overlay: {{subnet_length: {length}}}\nnodes: {{node01: {{containers: {containers}}}}}",
        "lab.yaml",
    )
    env = tmp_path / "subnet.env"
    env.write_text(f"FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET={subnet}\nFLANNEL_MTU=1450\n")
    (address,) = [r for r in rehearse(site(lab)) if r.step == "address"]
    found = [str(c) for c in address.commands if "awk" in str(c)]
    last = found[-1].replace("/run/flannel/subnet.env", str(env))
    name = last.partition("=")[0]
    done = subprocess.run(
        ["sh", "-c", f'{last}; echo "${name}"'], capture_output=True, text=True, check=True
    )
    network = IPv4Interface(subnet).network
    assert done.stdout.strip() == str(network[9 + containers])


# --- what an earlier run has learnt ---------------------------------------------------------------


def test_a_lab_that_was_located_is_exact() -> None:
    """NICs, addresses and MTU that `up` found on the hosts are taken from what it stored."""
    lab = lab_of("ssh")
    first, second = lab.nodes
    built = replace(
        lab,
        underlay=replace(lab.underlay, mtu=1500),
        nodes=(
            replace(first, address=IPv4Interface("192.168.56.21/24")),
            replace(second, address=IPv4Interface("192.168.56.22/24"), interface="ens7"),
        ),
    )
    assert known(lab, built) == built
    assert known(lab, None) == lab
    moved = replace(built, nodes=(replace(built.nodes[0], ssh="elsewhere"), built.nodes[1]))
    assert known(lab, moved).nodes[0] == first


# --- the command ----------------------------------------------------------------------------------


def tree(path: Path) -> list[tuple[str, float]]:
    return sorted((str(p), p.lstat().st_mtime) for p in path.rglob("*"))


@pytest.mark.parametrize("name", ["talk", "ssh"])
def test_nothing_is_touched(name: str, tmp_path: Path) -> None:
    """No directory for labs, no cache, no file where it runs; and hosts are not looked for."""
    (tmp_path / "here").mkdir()
    lab = tmp_path / "here" / "lab.yaml"
    lab.write_text(LABS[name])
    (tmp_path / "here").chmod(0o555)
    env = {"HOME": "home", "VXLAB_HOME": "labs", "VXLAB_CACHE": "cache", "TMPDIR": "tmp"}
    home = Home(tmp_path / "labs", env={k: str(tmp_path / v) for k, v in env.items()})
    before = tree(tmp_path)
    done = home("up", str(lab), "--dry-run", cwd=tmp_path / "here")
    assert (done.returncode, done.stderr) == (0, "")
    assert "etcd: where the flannelds agree\n  node01" in done.stdout
    assert tree(tmp_path) == before


def test_json(vxlab: Vxlab) -> None:
    """A list of steps, nodes and commands; the same commands as on the screen."""
    rows = json.loads(vxlab("up", "--dry-run", "--json").stdout)
    assert {tuple(row) for row in rows} == {("step", "node", "commands")}
    assert ("forwarding", "node02", ["sysctl -w net.ipv4.ip_forward=1"]) in [
        tuple(row.values()) for row in rows
    ]


def test_more_nodes_and_an_unknown_step(vxlab: Vxlab) -> None:
    """``--nodes`` and ``--to`` mean what they mean without ``--dry-run``."""
    assert "node03" in vxlab("up", "--dry-run", "--nodes", "3").stdout
    assert vxlab("up", "--dry-run", "--to", "nothing").returncode == 64


# --- on real nodes --------------------------------------------------------------------------------


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "vxlab-home")
    yield home
    cleaned(home)


def rows(home: Home, *words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = home.json("up", "--dry-run", *words)
    return found


@pytest.mark.kernel
@pytest.mark.lab
def test_typed_by_hand_it_works(tmp_path: Path) -> None:
    """Exactly the printed commands, given to shells on switch and nodes: the ping passes."""
    found = binaries.find(lambda line: None)
    assert found.etcdctl is not None
    (tmp_path / "bin").mkdir()
    for name in ("etcd", "etcdctl", "flanneld", "busybox"):
        (tmp_path / "bin" / name).symlink_to(getattr(found, name).path)
    home = Home(tmp_path / "labs-of-mine")
    on: dict[str, list[str]] = {}
    for row in rows(home):
        on.setdefault(row["node"], []).extend(row["commands"])
    world, *switch = on.pop("switch")
    enter = [line for line in switch if line.startswith("nsenter -m -u -i -n -p")]
    script = ["set -e", *(line for line in switch if line not in enter)]
    for line, commands in zip(enter, on.values(), strict=True):
        script += [f"{line} -e <<'END'", *commands, "END"]
    into = "nsenter --preserve-credentials -U -m -u -i -n -p -r"
    ping = f'{into} -t "$(pgrep -n sleep)" ping -c 3 -W 2 "$1"'
    look = "awk -F= '/SUBNET/{sub(/[.]1[/].*/, \".10\", $2); print $2}' /run/flannel/subnet.env"
    one, two = enter
    script += [f'other=$({two} -c "$look")', f'{one} -c "$ping" sh "$other"', "echo it works"]
    done = subprocess.run(
        shlex.split(world),
        input="\n".join([f"look={shlex.quote(look)} ping={shlex.quote(ping)}", *script]) + "\n",
        env={**os.environ, "PATH": f"{tmp_path}/bin:{PATH}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.endswith("it works\n"), done.stdout + done.stderr


@pytest.mark.kernel
@pytest.mark.lab
def test_a_lab_that_is_up(labs: Home) -> None:
    """Only what `up` would still do is printed, and `up` then does just that."""
    labs.ok("up", "--to", "mtu")
    todo = rows(labs)
    assert [row["step"] for row in todo if row["node"] == "node01"] == [
        *("address", "bridge", "route", "forwarding")
    ]
    assert "FLANNEL" not in json.dumps(todo)  # it is known by now
    changes = labs.json("up")["changes"]
    assert {(c["step"], c["node"]) for c in changes} == {(r["step"], r["node"]) for r in todo}
    assert (
        labs.ok("up", "--dry-run") == "talk is up and as wanted; `vxlab up` would change nothing\n"
    )
    labs.sh("node02", "ip link set cbr0 mtu 1400")
    assert rows(labs) == [
        {"step": "bridge", "node": "node02", "commands": ["ip link set dev cbr0 mtu 1450"]}
    ]


def test_the_empty_state_needs_everything() -> None:
    """A node that is there but empty gets the whole plan, without the world around it."""
    states = dict.fromkeys(("switch", "node01", "node02"), State())
    whole, empty = rehearse(site(talk.TALK)), rehearse(site(talk.TALK), states)
    assert whole[0].commands[1:] == empty[0].commands
    assert whole[1:] == empty[1:]
