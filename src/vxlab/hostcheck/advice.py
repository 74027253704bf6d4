"""What to type on a real host so that it can carry the lab. The lines run as root there."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable

from vxlab.hostcheck.facts import Facts
from vxlab.hostcheck.needs import Package

_FEDORA = frozenset({"fedora", "rhel", "centos"})
_SUSE = frozenset({"suse", "opensuse"})


def install_line(families: Collection[str], packages: Iterable[Package]) -> str:
    """The package manager's command for missing programs.

    Args:
        families: ``ID`` and ``ID_LIKE`` of the host's os-release(5).
        packages: where the programs are.
    """
    wanted = list(dict.fromkeys(packages))
    debian = " ".join(dict.fromkeys(p.debian for p in wanted))
    fedora = " ".join(dict.fromkeys(p.fedora for p in wanted))
    have = frozenset(families)
    if "debian" in have or "ubuntu" in have:
        return f"sudo apt-get install {debian}"
    if have & _FEDORA:
        return f"sudo dnf install {fedora}"
    if have & _SUSE:
        return f"sudo zypper install {debian.replace('mount', 'util-linux')}"
    if "alpine" in have:
        return f"sudo apk add {debian}"
    if "arch" in have:
        return f"sudo pacman -S {debian.replace('mount', 'util-linux')}"
    return f"install the packages {debian}"


def module_line(families: Collection[str], release: str, module: str) -> str:
    """How to get a kernel feature that is a module and is not loaded.

    Args:
        families: see `install_line`.
        release: the kernel's, as ``uname -r`` says.
        module: its name.
    """
    have = frozenset(families)
    if "ubuntu" in have:
        package = f"sudo apt-get install linux-modules-extra-{release}"
    elif have & _FEDORA:
        package = f"sudo dnf install kernel-modules-{release} kernel-modules-extra-{release}"
    else:
        package = "a kernel with that module, from the distribution"
    return f"sudo modprobe {module}   (no such module: {package})"


def namespaces_line(facts: Facts) -> str:
    """Why root may not make namespaces (namespaces(7), user_namespaces(7))."""
    if facts.container or facts.own_users:
        return container_line()
    return (
        "sudo sysctl user.max_user_namespaces user.max_net_namespaces user.max_pid_namespaces"
        "   (0 forbids them; /etc/sysctl.d)\n"
        "a seccomp filter or a security module may forbid them, too: see the host's log"
    )


def container_line() -> str:
    """What a container's engine has to leave alone for a lab inside the container."""
    return "this host is a container: start it privileged, or take a virtual machine"


def iptables_line(tries: Container[str]) -> str:
    """How to get an iptables that works there: the other back end, or the kernel's modules.

    Args:
        tries: what worked, ``other-iptables-nft`` and ``other-iptables-legacy`` among it.
    """
    for other in ("iptables-nft", "iptables-legacy"):
        if f"other-{other}" in tries:
            return f"sudo update-alternatives --set iptables /usr/sbin/{other}   (that one works)"
    return "sudo modprobe -a nf_tables nft_compat   (iptables-legacy: ip_tables iptable_filter)"


def open_lines(facts: Facts, sources: Iterable[str], ports: Iterable[str]) -> str:
    """The firewall's commands that let the other hosts in.

    Args:
        facts: which firewall there is.
        sources: the other hosts, addresses or networks.
        ports: such as ``8472/udp``.
    """
    lines = []
    for source in sources:
        for each in ports:
            port, _, protocol = each.partition("/")
            lines.append(_open_line(facts, source, port, protocol))
    return "\n".join(lines)


def _open_line(facts: Facts, source: str, port: str, protocol: str) -> str:
    if ufw(facts):
        return f"sudo ufw allow proto {protocol} from {source} to any port {port}"
    if firewalld(facts):
        rule = f"rule family=ipv4 source address={source} port port={port} protocol={protocol}"
        return f"sudo firewall-cmd --add-rich-rule='{rule} accept'"
    return f"sudo iptables -I INPUT -p {protocol} -s {source} --dport {port} -j ACCEPT"


def firewalld(facts: Facts) -> bool:
    return "firewalld" in facts.processes.values() or "inet firewalld" in facts.tables


def ufw(facts: Facts) -> bool:
    return "ufw-user-input" in facts.chains
