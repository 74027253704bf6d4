"""Reading what a host printed: values out of text, and no facts out of half a text."""

from __future__ import annotations

import json
import re

import pytest

from vxlab import hostcheck, labfile
from vxlab.hostcheck import FactsError
from vxlab.hostcheck.facts import Answer, Socket, Space

ADDRESSES = [
    {"ifname": "lo", "flags": ["LOOPBACK", "UP"], "mtu": 65536, "addr_info": []},
    {},
    {
        "ifname": "eth1",
        "flags": ["BROADCAST", "NO-CARRIER", "UP"],
        "mtu": 1500,
        "address": "52:54:00:00:01:01",
        "addr_info": [
            {"family": "inet", "local": "192.168.56.21", "prefixlen": 24},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
        ],
    },
    {
        "ifname": "ovs",
        "flags": [],
        "mtu": 65485,
        "linkinfo": {"info_kind": "vxlan", "info_data": {"external": True, "port": 4789}},
    },
]
ROUTES = [
    {"dst": "default", "gateway": "192.168.56.1", "dev": "eth1"},
    {"dst": "10.9.0.0/16", "nexthops": [{"gateway": "192.168.56.9", "dev": "eth1"}]},
]

OUTPUT = f"""\
@@ os
# a comment
PRETTY_NAME="Rocky Linux 9.5 (Blue Onyx)"
ID="rocky"
ID_LIKE='rhel centos fedora'
@@ uname
x86_64
5.14.0-503.el9.x86_64
@@ clock
1800000000
@@ boot
4fd44c79-a14b-4e4d-8705-b800e7382154
@@ machine
3d1219c7c4c5404aaa1f6d2a48adfda4
@@ uidmap
         0     100000      65536
@@ container
/run/systemd/container
@@ login
alice
@@ logind
KillUserProcesses=no
KillUserProcesses=yes
@@ programs
ip /usr/sbin/ip
mount /usr/bin/mount
@@ env
works
@@ iptables
iptables v1.8.10 (nf_tables)
@@ net
{json.dumps(ADDRESSES)}
{json.dumps(ROUTES)}
@@ sockets
tcp LISTEN 0 4096 127.0.0.1%lo:2380 0.0.0.0:* users:(("etcd",pid=8,fd=3),("etcd",pid=8,fd=4))
tcp LISTEN 0 128 [::]:22 [::]:* users:(("ss hd",pid=1,fd=3),("systemd",pid=1,fd=9))
tcp LISTEN 0 50 [::ffff:127.0.0.1]:9 *:* users:(("java",pid=5,fd=3))
tcp LISTEN 0 50 [::1]:631 [::]:*
udp UNCONN 0 0 0.0.0.0:8472 0.0.0.0:*
@@ processes
812 etcd
900 k3s-server
@@ chains
*nat
:FORWARD ACCEPT
*filter
:FORWARD DROP
:ufw-user-input -
@@ tables
table inet firewalld
@@ sysctls
ip_forward 1
conf/eth1/rp_filter 2
@@ selinux
1
@@ space
/var/cache 102400 /var with a blank
@@ mounts
/ rw,relatime
/run rw,nosuid,noexec
/run ro
@@ files
/run/flannel
@@ labs
demo
@@ tries
unshare: a warning
@ namespaces 0
@ kernel-vxlan 2
Error: Unknown device type.
and more
@ kernel-iptables 0

@@ end
"""


def test_everything_is_read() -> None:
    """Each section becomes a value; the last of several counts."""
    facts = hostcheck.parse(OUTPUT)

    assert facts.os == "Rocky Linux 9.5 (Blue Onyx)"
    assert facts.families == {"rocky", "rhel", "centos", "fedora"}
    assert (facts.machine, facts.kernel, facts.clock) == (
        "x86_64",
        "5.14.0-503.el9.x86_64",
        1_800_000_000,
    )
    assert (facts.own_users, facts.container) == (True, "/run/systemd/container")
    assert (facts.login, facts.kills) == ("alice", True)
    assert facts.programs == {"ip": "/usr/sbin/ip", "mount": "/usr/bin/mount"}
    eth1, ovs = facts.nics["eth1"], facts.nics["ovs"]
    assert ([str(a) for a in eth1.addresses], eth1.up, eth1.carrier) == (
        ["192.168.56.21/24"],
        True,
        False,
    )
    assert (ovs.kind, ovs.external, ovs.up) == ("vxlan", True, False)
    assert [(r.dst, r.via, r.dev) for r in facts.routes] == [
        ("default", "192.168.56.1", "eth1"),
        ("10.9.0.0/16", "192.168.56.9", "eth1"),
    ]
    assert facts.sockets == (
        Socket("tcp", "127.0.0.1", 2380, "etcd (PID 8)"),
        Socket("tcp", "*", 22, "ss hd (PID 1), systemd (PID 1)"),
        Socket("tcp", "127.0.0.1", 9, "java (PID 5)"),
        Socket("tcp", "[::1]", 631, ""),
        Socket("udp", "*", 8472, ""),
    )
    assert facts.processes == {812: "etcd", 900: "k3s-server"}
    assert facts.chains == {"FORWARD": "DROP", "ufw-user-input": "-"}
    assert facts.tables == ("inet firewalld",)
    assert facts.sysctls == {"ip_forward": "1", "conf/eth1/rp_filter": "2"}
    assert facts.enforcing is True
    assert facts.space == {"/var/cache": Space(102400, "/var with a blank")}
    assert facts.mounts == {"/": {"rw", "relatime"}, "/run": {"ro"}}
    assert facts.files == {"/run/flannel"}
    assert facts.labs == {"demo"}
    assert facts.refusal == "unshare: a warning"
    assert facts.tries["kernel-vxlan"] == Answer(2, "Error: Unknown device type.\nand more")


@pytest.mark.parametrize(
    ("settings", "login", "kills"),
    [
        ("", "alice", False),
        ("KillUserProcesses=yes", "root", False),
        ("KillUserProcesses=yes\nKillExcludeUsers=root alice", "alice", False),
        ("KillUserProcesses=yes\nKillExcludeUsers=", "root", True),
        ("KillUserProcesses=yes\nKillOnlyUsers=bob", "alice", False),
        ("KillUserProcesses=yes\nKillOnlyUsers=bob", "bob", True),
    ],
)
def test_logind_ends_whose_processes(settings: str, login: str, kills: bool) -> None:
    """logind.conf(5): root is left out unless told otherwise."""
    new = f"@@ login\n{login}\n@@ logind\n{settings}\n@@ programs"
    text = re.sub(r"@@ login\n.*?@@ programs", new, OUTPUT, flags=re.DOTALL)

    assert hostcheck.parse(text).kills is kills


def test_empty_sections_are_no_error() -> None:
    """Where programs are missing their sections are empty."""
    marks = "".join(line + "\n" for line in OUTPUT.splitlines() if line.startswith("@@ "))

    facts = hostcheck.parse(marks)

    assert (facts.nics, facts.clock, facts.ignores, facts.own_users) == ({}, 0, False, False)


def test_half_an_output_is_refused() -> None:
    """The connection was lost, or the host's shell ended: wherever it is cut, it is no look."""
    lines = OUTPUT.splitlines(keepends=True)

    for count in range(len(lines) - 1):
        with pytest.raises(FactsError, match="ends before"):
            hostcheck.parse("".join(lines[:count]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1800000000", "soon"),
        ("@@ space\n/var/cache 102400 /var", "@@ space\n/var/cache much /var"),
        (json.dumps(ROUTES), "[{"),
        (json.dumps(ROUTES), '["text"]'),
        ("0.0.0.0:8472 0.0.0.0:*", "half a line"),
        ("@@ selinux\n", ""),
        ("@ kernel-vxlan 2", "@ kernel-vxlan two"),
    ],
)
def test_nonsense_is_refused(old: str, new: str) -> None:
    """What is not what the program prints is an error that says so, never a traceback."""
    assert old in OUTPUT

    with pytest.raises(FactsError, match="cannot read what the host is"):
        hostcheck.parse(OUTPUT.replace(old, new))


def test_the_program_quotes_what_the_lab_says() -> None:
    """Nothing of a lab file is shell text on a host; the program is pure ASCII."""
    lab = labfile.default()

    text = hostcheck.program(lab, lab.nodes[0], busybox="/a b/'c'")

    assert "'/a b/'\"'\"'c'\"'\"''" in text
    assert text.isascii()
