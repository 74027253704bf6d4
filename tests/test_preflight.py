"""`vxlab check`'s findings: on the real kernel where it can show them, else with a named fake."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vxlab import preflight
from vxlab.hostcheck import advice
from vxlab.preflight import Finding
from vxlab.script import PATH

REPORT = """\
import dataclasses, json
from vxlab import preflight
print(json.dumps([dataclasses.asdict(each) for each in preflight.run()]))
"""


def by_code(findings: list[Finding]) -> dict[str, Finding]:
    return {each.code: each for each in findings}


def kernel_part(findings: list[Finding]) -> dict[str, bool | None]:
    """The verdicts on what every lab needs from the kernel."""
    return {
        each.code: each.ok
        for each in findings
        if each.code.startswith(("kernel-", "namespaces")) and each.code != "kernel-tun"
    }


def shadow(directory: Path, program: str, script: str) -> str:
    """A PATH on which a fake program hides the real one; in `script`, $real is the real one."""
    fake = directory / program
    real = shutil.which(program, path=PATH)
    fake.write_text(f"#!/bin/sh\nreal={real}\n{script}")
    fake.chmod(0o755)
    return f"{directory}:{PATH}"


def path_without(directory: Path, *missing: str) -> str:
    """A PATH with every program of this machine but some."""
    for place in reversed(PATH.split(":")):
        for file in Path(place).glob("*"):
            link = directory / file.name
            link.unlink(missing_ok=True)
            if file.name not in missing:
                link.symlink_to(file)
    return str(directory)


def run_within(setup: str) -> dict[str, Finding]:
    """The findings of another process, which runs in namespaces that `setup` has made strange."""
    user = ["--user", "--map-root-user"]
    answer = subprocess.run(
        ["unshare", *user, "--mount", "sh", "-ec", setup, "sh", sys.executable, "-c", REPORT],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return by_code([Finding(**each) for each in json.loads(answer.stdout)])


@pytest.mark.kernel
def test_a_machine_that_can_run_the_lab_has_every_kernel_feature() -> None:
    """On the machine that tests vxlab, every feature is tried and works."""
    verdicts = kernel_part(preflight.run())

    assert [code for code, ok in verdicts.items() if ok is not True] == []


@pytest.mark.kernel
def test_nothing_is_left_behind() -> None:
    """The host's interfaces, forwarding switch, mounts and processes are as before."""

    def host() -> list[str]:
        interfaces = subprocess.run(["ip", "-d", "address"], capture_output=True, check=True)
        children = f"/proc/self/task/{os.getpid()}/children"
        files = ("/proc/sys/net/ipv4/ip_forward", "/proc/self/mountinfo", children)
        return [interfaces.stdout.decode(), *(Path(file).read_text() for file in files)]

    before = host()
    preflight.run()

    assert host() == before


@pytest.mark.kernel
def test_a_kernel_without_vxlan_is_told_from_one_with(tmp_path: Path) -> None:
    """No VXLAN: that finding fails, with the kernel's words and modprobe; the others stand.

    A fake `ip` stands for a kernel without the module, which no machine with VXLAN can show.
    """
    path = shadow(
        tmp_path,
        "ip",
        'case "$*" in *"type vxlan"*) echo "Error: Unknown device type." >&2; exit 2;; esac\n'
        'exec "$real" "$@"\n',
    )

    findings = preflight.run(path)

    verdicts = kernel_part(findings)
    assert [code for code, ok in verdicts.items() if ok is not True] == ["kernel-vxlan"]
    vxlan = by_code(findings)["kernel-vxlan"]
    assert vxlan.ok is False
    assert vxlan.seen == "Error: Unknown device type."
    assert vxlan.todo.startswith("sudo modprobe vxlan")


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("code", "program", "arguments"),
    [
        ("kernel-veth", "ip", '*"type veth"*'),
        ("kernel-bridge", "ip", '*"type bridge"*'),
        ("kernel-vxlan", "bridge", "fdb*"),
        ("kernel-iptables", "iptables", '*"-A "*'),
        ("kernel-container", "unshare", '*"--mount-proc true"'),
        ("kernel-proc", "mount", '*"-t proc"*'),
        ("kernel-mount", "mount", "*--bind*"),
    ],
)
def test_each_feature_that_is_refused_is_found(
    tmp_path: Path, code: str, program: str, arguments: str
) -> None:
    """Whichever feature the kernel refuses, its finding fails and repeats the kernel's words.

    A fake program stands for the kernel's refusal.
    """
    refusal = "RTNETLINK answers: Operation not permitted"
    path = shadow(
        tmp_path,
        program,
        f'case "$*" in {arguments}) echo "{refusal}" >&2; exit 2;; esac\nexec "$real" "$@"\n',
    )

    found = by_code(preflight.run(path))[code]

    assert found.ok is False
    assert found.seen == refusal
    assert found.todo != ""


@pytest.mark.kernel
def test_a_container_forbidden_by_the_limit_names_the_line_that_allows_it() -> None:
    """user.max_user_namespaces=0, for real (in a user namespace of the test's own)."""
    found = run_within('echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"')

    container = found["kernel-container"]
    assert container.ok is False
    assert "No space left on device" in container.seen
    assert container.todo.startswith("sysctl -w user.max_user_namespaces=15000 ")


@pytest.mark.kernel
def test_a_masked_proc_as_in_docker_names_the_options_of_the_engine() -> None:
    """With a mount over a part of /proc, the kernel refuses an ordinary user a new /proc."""
    ordinary = "exec unshare --map-user=1000 --map-group=1000"

    found = run_within(f'mount -t tmpfs tmpfs /proc/fs; {ordinary} "$@"')

    assert found["kernel-veth"].ok is True
    assert found["kernel-proc"].ok is False
    assert "permission denied" in found["kernel-proc"].seen.lower()
    assert found["kernel-container"].ok is False


def test_without_namespaces_the_rest_is_not_judged(tmp_path: Path) -> None:
    """unshare refused: one finding fails; what could not be tried is neither good nor bad.

    A fake `unshare` stands for a kernel that refuses.
    """
    path = shadow(
        tmp_path, "unshare", 'echo "unshare: unshare failed: Operation not permitted" >&2; exit 1\n'
    )

    found = by_code(preflight.run(path))

    assert found["namespaces"].ok is False
    assert found["namespaces"].seen == "unshare: unshare failed: Operation not permitted"
    assert found["kernel-vxlan"].ok is None
    assert found["kernel-vxlan"].seen.startswith("not tried")


def test_a_missing_program_is_found_with_the_package_that_has_it(tmp_path: Path) -> None:
    """No iptables on PATH: its finding fails and names a package."""
    found = by_code(preflight.run(path_without(tmp_path, "iptables", "tcpdump")))

    assert found["program-iptables"].ok is False
    assert found["program-iptables"].seen == "not found"
    assert "iptables" in found["program-iptables"].todo
    assert found["program-tcpdump"].ok is None
    assert found["program-ip"].ok is True


def test_a_machine_without_unshare_gets_a_report_too(tmp_path: Path) -> None:
    """No unshare: said as a finding, not as a crash."""
    found = by_code(preflight.run(path_without(tmp_path, "unshare")))

    assert found["program-unshare"].ok is False
    assert found["namespaces"].ok is False
    assert found["namespaces"].todo == "install the program that is missing"


@pytest.mark.kernel
def test_a_program_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tries end after their time; what was tried before counts, what came after was not."""
    monkeypatch.setattr(preflight, "TIMEOUT", 1.0)
    path = shadow(
        tmp_path, "ip", 'case "$*" in *"type vxlan"*) sleep 1000;; esac\nexec "$real" "$@"\n'
    )

    found = by_code(preflight.run(path))

    assert found["kernel-bridge"].ok is True
    assert found["kernel-vxlan"].ok is None


def test_missing_overlay_programs_are_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without flanneld, the finding says where it was looked for and how to get it."""
    monkeypatch.setenv("VXLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("VXLAB_ETCD", "VXLAB_FLANNELD", "VXLAB_BUSYBOX"):
        monkeypatch.delenv(name, raising=False)

    found = by_code(preflight.run())["overlay-programs"]

    assert found.ok is False
    assert "PATH: there is no flanneld" in found.seen
    assert "vxlab install" in found.todo


@pytest.mark.parametrize(
    ("switch", "value", "line"),
    [
        (
            "kernel/unprivileged_userns_clone",
            "0",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
        ("user/max_net_namespaces", "0", "sudo sysctl -w user.max_net_namespaces=15000"),
    ],
)
def test_each_switch_names_the_very_line_that_allows_it(
    tmp_path: Path, switch: str, value: str, line: str
) -> None:
    """A directory stands for the /proc of Debian's, Ubuntu's and Red Hat's kernels."""
    file = tmp_path / "proc/sys" / switch
    file.parent.mkdir(parents=True)
    file.write_text(f"{value}\n")

    assert preflight.allow_lines("Operation not permitted", root=False, slash=tmp_path)[
        0
    ].startswith(line + " ")


def test_a_switch_that_allows_is_not_blamed(tmp_path: Path) -> None:
    """Ubuntu's switch at 0 forbids nothing; the next suspect is named instead."""
    file = tmp_path / "proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    file.parent.mkdir(parents=True)
    file.write_text("0\n")

    lines = preflight.allow_lines("Operation not permitted", root=False, slash=tmp_path)

    assert lines == ["a seccomp filter, a security module or a chroot forbids it; try it as root"]


def test_switches_for_ordinary_users_do_not_stop_root(tmp_path: Path) -> None:
    """Debian's switch at 0 is not what stops root."""
    file = tmp_path / "proc/sys/kernel/unprivileged_userns_clone"
    file.parent.mkdir(parents=True)
    file.write_text("0\n")

    lines = preflight.allow_lines("Operation not permitted", root=True, slash=tmp_path)

    assert lines == ["root lacks CAP_SYS_ADMIN here; try it as an ordinary user"]


@pytest.mark.parametrize("sign", [".dockerenv", "run/.containerenv", "run/systemd/container"])
def test_inside_a_container_the_engine_is_named(tmp_path: Path, sign: str) -> None:
    """A container's engine forbids namespaces by seccomp and masks: its options are named."""
    file = tmp_path / sign
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()

    lines = preflight.allow_lines("Operation not permitted", root=False, slash=tmp_path)

    assert lines == [preflight.container_line()]
    assert "seccomp=unconfined" in lines[0]


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ({"ID": "debian"}, "sudo apt-get install iproute2"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "sudo apt-get install iproute2"),
        ({"ID": "fedora"}, "sudo dnf install iproute"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "sudo dnf install iproute"),
        ({"ID": "alpine"}, "install the package iproute2"),
    ],
)
def test_packages_are_named_as_the_distribution_names_them(
    monkeypatch: pytest.MonkeyPatch, release: dict[str, str], line: str
) -> None:
    """The same program is in iproute2 on Debian and in iproute on Fedora."""
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)

    assert preflight.install_line("iproute2", "iproute") == line


@pytest.mark.parametrize(
    ("release", "package"),
    [
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "apt-get install linux-modules-extra-"),
        ({"ID": "fedora"}, "dnf install kernel-modules-"),
        ({"ID": "arch"}, "a kernel with that module"),
    ],
)
def test_a_missing_module_names_its_package(
    monkeypatch: pytest.MonkeyPatch, release: dict[str, str], package: str
) -> None:
    """Ubuntu's cloud kernels and Fedora's small ones have VXLAN in a package of its own."""
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)

    line = preflight.module_line("vxlan", "Error: Unknown device type.")

    assert line.startswith("sudo modprobe vxlan ")
    assert package in line


def test_the_iptables_that_works_is_named() -> None:
    """If the other back end's iptables works, it is what to switch to."""
    line = advice.iptables_line({"other-iptables-legacy": (0, "")})

    assert line.startswith("sudo update-alternatives --set iptables /usr/sbin/iptables-legacy ")
