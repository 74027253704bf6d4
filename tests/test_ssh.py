"""Connections to real OpenSSH servers: keys, questions, sudo, the root shell, what breaks."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from bare_machine import real_busybox
from hosts import BOB, CAROL, PASSWORD, USERS, Host, Hosts, Options, User, key
from kernel import KERNEL, wait_for
from test_ssh_config import keygen
from vxlab import namespaces
from vxlab.errors import (
    OperationError,
    RefusedError,
    UnreachableError,
    VxlabError,
)
from vxlab.ssh import Connection, route

pytestmark = KERNEL

#: The hosts' addresses.
ONE, TWO = "192.168.56.21", "192.168.56.22"

#: May log in with bob's password, and nothing more.
DAVE = replace(BOB, name="dave", uid=1004, sudo="")
#: Whose shell is no POSIX shell's usual one, and chatters.
EVE = User("eve", 1005, sudo="ALL=(ALL:ALL) NOPASSWD: ALL")


@dataclass
class Person:
    """Who is asked; answers from a list, and is nobody when it is empty."""

    answers: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def __call__(self, question: str) -> str | None:
        self.questions.append(question)
        return self.answers.pop(0) if self.answers else None


class Controller:
    """This thread, in the controller's network, with an OpenSSH configuration of its own."""

    def __init__(self, hosts: Hosts, config: Path) -> None:
        self.hosts, self.config = hosts, config
        self.known_hosts = config.with_name("known_hosts")
        self.stack = ExitStack()
        self.write()

    def write(self, text: str = "", *, known: str | None = None, identity: str = "") -> None:
        """Write the configuration.

        Args:
            text: lines that come first.
            known: what the file of known hosts says; the truth unless told.
            identity: the identity file's lines, instead of the controller's key.
        """
        truth = "".join(f"{h.address} {key(h.name)[1].decode()}" for h in self.hosts)
        self.known_hosts.write_text(truth if known is None else known)
        aliases = [f"Host {h.name}\n  HostName {h.address}\n" for h in self.hosts]
        everywhere = f"Host *\n  UserKnownHostsFile {self.known_hosts}\n"
        everywhere += "  GlobalKnownHostsFile none\n"
        everywhere += identity or f"  IdentityFile {self.hosts.identity}\n"
        self.config.write_text(text + "".join(aliases) + everywhere)

    def open(
        self, target: str, *answers: str, accept_new: bool = False, ask: Person | None = None
    ) -> Connection:
        person = Person(list(answers)) if ask is None else ask
        connection = Connection.open("node01", target, ask=person, accept_new=accept_new)
        self.stack.callback(connection.close)
        return connection

    def refused(self, target: str, **options: Any) -> VxlabError:
        with pytest.raises(VxlabError) as caught:
            self.open(target, **options)
        assert caught.value.where == "node01"
        return caught.value


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """host1, host2 and host3, for all tests that leave them as they are."""
    options = Options(users=(*USERS, DAVE, EVE))
    names = ("host1", "host2", "host3")
    with Hosts(tmp_path_factory.mktemp("ssh"), 3, dict.fromkeys(names, options)) as hosts:
        yield hosts


@pytest.fixture
def host(hosts: Hosts) -> Host:
    return hosts["host1"]


@pytest.fixture
def controller(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Controller]:
    """The controller; the test's thread (and its threads and children) are in its network."""
    monkeypatch.setenv("VXLAB_SSH_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with open("/proc/self/ns/net") as before:
        with open(f"/proc/{hosts.controller.pid}/ns/net") as there:
            namespaces.setns(there.fileno(), namespaces.CLONE_NEWNET)
        controller = Controller(hosts, tmp_path / "config")
        try:
            with controller.stack:
                yield controller
        finally:
            namespaces.setns(before.fileno(), namespaces.CLONE_NEWNET)


@pytest.fixture
def changed(host: Host) -> Iterator[Callable[[str, str], None]]:
    """Changes lines of host1's sshd_config (sed expressions) for one test."""
    file = host.files / "etc/ssh/sshd_config"
    before = file.read_text()

    def change(old: str, new: str) -> None:
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        host.stop_sshd()
        host.start_sshd()

    yield change
    file.write_text(before)
    host.stop_sshd()
    host.start_sshd()


# --- logging in -----------------------------------------------------------------------------------


def test_a_key_opens_a_root_shell(controller: Controller) -> None:
    """By an alias of the user's configuration, or by address; nobody is asked."""
    person = Person()
    for target in ("root@host1", f"root@{controller.hosts['host1'].address}:22"):
        connection = controller.open(target, ask=person)
        assert connection.run("id -u; pwd; umask; hostname") == "0\n/\n0022\nhost1\n"
        assert connection.name == "node01"
    assert person.questions == []


def test_a_passphrase_is_asked_for_once(controller: Controller, tmp_path: Path) -> None:
    """Wrong ones again; other connections use the key that was opened."""
    locked = tmp_path / "locked"
    locked.write_bytes(controller.hosts.identity.read_bytes())
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True)
    controller.write(identity=f"  IdentityFile {locked}\n")
    person = Person(["wrong"] * 3)
    error = controller.refused("root@host1", ask=person)
    assert isinstance(error, RefusedError)
    assert f"{locked}: wrong passphrase" in error.detail
    person = Person(["wrong", "secret"])
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: controller.open("root@host1", ask=person), range(4)))
    assert [each.run("id -u") for each in opened] == ["0\n"] * 4
    assert person.questions == [f"passphrase of {locked} for root@host1"] * 2


def test_without_an_answer_a_locked_key_is_left_out(controller: Controller, tmp_path: Path) -> None:
    """The error says what was tried, and what to do without a terminal."""
    locked = keygen(tmp_path / "locked", "-t", "ed25519")
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True)
    controller.write(identity=f"  IdentityFile {locked}\n")
    error = controller.refused("root@host1")
    assert isinstance(error, RefusedError)
    assert error.message == f"root@host1 was refused the login to {ONE}:22"
    assert error.detail.splitlines()[0] == f"{locked}: no passphrase"
    assert "nobody to ask" in error.hint


def test_a_password_serves_sudo_too(controller: Controller) -> None:
    """It is asked for once; the first wrong one is asked for again."""
    controller.write(identity="  IdentityFile none\n")
    person = Person(["wrong", PASSWORD])
    assert controller.open("bob@host1", ask=person).run("id -u") == "0\n"
    assert person.questions == ["password of bob@host1"] * 2


def test_a_password_is_wrong_three_times_at_most(controller: Controller) -> None:
    controller.write(identity="  IdentityFile none\n")
    person = Person(["secret1", "secret2", "secret3", PASSWORD])
    error = controller.refused("bob@host1", ask=person)
    assert isinstance(error, RefusedError)
    assert person.questions == ["password of bob@host1"] * 3
    assert error.detail.splitlines()[:3] == ["password: refused"] * 3
    assert "secret" not in str(error.as_json())


def test_a_refused_key_is_named(controller: Controller, tmp_path: Path) -> None:
    """And what the host offers instead."""
    other = keygen(tmp_path / "other", "-t", "rsa")
    controller.write(identity=f"  IdentityFile {other}\n")
    error = controller.refused("root@host1")
    assert isinstance(error, RefusedError)
    assert error.detail.splitlines()[0] == f"{other}: refused"
    assert "the host offers publickey,password" in error.detail.replace(", ", ",")


def test_the_hosts_own_questions_are_asked(
    controller: Controller, changed: Callable[[str, str], None]
) -> None:
    """Keyboard-interactive, as PAM asks; what answers a password's question serves sudo."""
    changed(
        "PasswordAuthentication yes\nKbdInteractiveAuthentication no\nUsePAM no",
        "PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM yes",
    )
    controller.write(identity="  IdentityFile none\n")
    person = Person(["wrong", PASSWORD])
    assert controller.open("bob@host1", ask=person).run("id -u") == "0\n"
    assert len(person.questions) == 2
    assert re.fullmatch(r"bob@host1: .*Password:", person.questions[0])
    error = controller.refused("bob@host1")
    assert isinstance(error, RefusedError)
    assert "nobody to ask" in error.hint


def test_a_host_may_want_a_key_and_a_password(
    controller: Controller, changed: Callable[[str, str], None]
) -> None:
    """AuthenticationMethods publickey,password"""
    changed("UsePAM no", "UsePAM no\nAuthenticationMethods publickey,password")
    person = Person([PASSWORD])
    assert controller.open("bob@host1", ask=person).run("id -u") == "0\n"
    assert person.questions == ["password of bob@host1"]


@pytest.fixture
def agent(tmp_path: Path, hosts: Hosts) -> Iterator[Path]:
    """A running agent's socket; it has the controller's key and two that open nothing."""
    path = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL) as process:
        wait_for(path.exists, "the agent")
        others = [keygen(tmp_path / name, "-t", "ed25519") for name in ("first", "second")]
        env = {**os.environ, "SSH_AUTH_SOCK": str(path)}
        add = ["ssh-add", "-q", *map(str, others), str(hosts.identity)]
        subprocess.run(add, env=env, check=True, capture_output=True)
        yield path
        process.terminate()


def test_the_agents_keys_open_hosts(
    controller: Controller, agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of SSH_AUTH_SOCK, or of IdentityAgent; not if it says none."""
    controller.write(identity=f"  IdentityFile none\n  IdentityAgent {agent}\n")
    assert controller.open("root@host1").run("id -u") == "0\n"
    controller.write(identity="  IdentityFile none\n  IdentityAgent none\n")
    monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
    assert "there was no key to try" in controller.refused("root@host1").detail
    controller.write(identity="  IdentityFile none\n")
    assert controller.open("root@host1").run("id -u") == "0\n"


def test_identities_only_names_the_agents_key(
    controller: Controller, agent: Path, tmp_path: Path
) -> None:
    """By its public half alone; all others are left alone."""
    controller.write(
        identity=f"  IdentityAgent {agent}\n  IdentitiesOnly yes\n"
        f"  IdentityFile {tmp_path}/first.pub\n"
    )
    error = controller.refused("root@host1")
    assert error.detail.splitlines()[:-1] == [f"{tmp_path}/first.pub (agent): refused"]
    mine = tmp_path / "mine.pub"
    mine.write_bytes(key("controller")[1])
    controller.write(
        identity=f"  IdentityAgent {agent}\n  IdentitiesOnly yes\n  IdentityFile {mine}\n"
    )
    assert controller.open("root@host1").run("id -u") == "0\n"


def test_an_agent_that_is_gone_is_no_agent(controller: Controller, tmp_path: Path) -> None:
    """A stale socket, as logins leave them."""
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    controller.write(
        identity=f"  IdentityAgent {tmp_path}/stale\n  IdentityFile {controller.hosts.identity}\n"
    )
    assert controller.open("root@host1").run("id -u") == "0\n"


def test_too_many_keys_say_so(
    controller: Controller, changed: Callable[[str, str], None], agent: Path
) -> None:
    """The host hangs up after MaxAuthTries; the hint is IdentitiesOnly."""
    changed("UsePAM no", "UsePAM no\nMaxAuthTries 1")
    controller.write(identity=f"  IdentityFile none\n  IdentityAgent {agent}\n")
    error = controller.refused("root@host1")
    assert isinstance(error, RefusedError)
    assert "IdentitiesOnly" in error.hint


# --- host keys ------------------------------------------------------------------------------------


def test_an_unknown_host_key_is_refused_until_its_line_is_added(controller: Controller) -> None:
    """The hint's line is enough; the fingerprint is what ``ssh-keygen -l`` says."""
    controller.write(known="")
    error = controller.refused("root@host1")
    assert isinstance(error, RefusedError)
    public = controller.hosts["host1"].files / "etc/ssh/ssh_host_ed25519_key.pub"
    said = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True, check=True)
    assert error.detail == f"ssh-ed25519 {said.stdout.split()[1]}"
    assert str(controller.known_hosts) in error.hint
    (line,) = [each for each in error.hint.splitlines() if " ssh-ed25519 " in each]
    controller.known_hosts.write_text(line + "\n")
    assert controller.open("root@host1").run("id -u") == "0\n"


def test_accept_new_remembers_keys(controller: Controller) -> None:
    """Of several connections at once, too; each is known afterwards, and written once."""
    controller.write(known="")
    targets = ["root@host1", "root@host2"] * 4
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda t: controller.open(t, accept_new=True), targets))
    assert [each.run("hostname") for each in opened] == ["host1\n", "host2\n"] * 4
    names = [line.split()[0] for line in controller.known_hosts.read_text().splitlines()]
    assert sorted(names) == [ONE, TWO]
    assert controller.open("root@host1").run("id -u") == "0\n"


@pytest.mark.parametrize("accept_new", [False, True])
def test_a_changed_host_key_is_refused(controller: Controller, accept_new: bool) -> None:
    """The hint's command forgets the old key, and only then the new one is accepted."""
    known = f"{ONE} {key('host2')[1].decode()}"
    controller.write(known=known)
    error = controller.refused("root@host1", accept_new=accept_new)
    assert isinstance(error, RefusedError)
    assert "has changed" in error.message
    assert error.detail.count("SHA256:") == 2
    assert controller.known_hosts.read_text() == known
    command = re.findall("`(ssh-keygen [^`]*)`", error.hint)[0]
    subprocess.run(command, shell=True, check=True, capture_output=True)  # noqa: S602
    controller.open("root@host1", accept_new=True)


def test_a_revoked_host_key_is_refused(controller: Controller) -> None:
    line = f"{ONE} {key('host1')[1].decode()}"
    controller.write(known=f"{line}@revoked {line}")
    error = controller.refused("root@host1", accept_new=True)
    assert isinstance(error, RefusedError)
    assert "was revoked" in error.message


def test_a_port_of_its_own_has_a_key_of_its_own(controller: Controller, host: Host) -> None:
    """``[host]:port`` in the file, as OpenSSH writes it."""
    host.ok("/usr/sbin/sshd -p 2222 -o PidFile=/run/sshd-2222.pid")
    controller.write(known="")
    assert controller.open("root@host1:2222", accept_new=True).run("id -u") == "0\n"
    assert controller.known_hosts.read_text().startswith(f"[{ONE}]:2222 ssh-ed25519 ")
    host.ok("kill $(cat /run/sshd-2222.pid)")


def test_the_known_type_of_key_is_asked_for(
    controller: Controller, host: Host, changed: Callable[[str, str], None], tmp_path: Path
) -> None:
    """A host with several keys, of which one is known, has not changed."""
    path = host.files / "etc/ssh/rsa"
    public = keygen(path, "-t", "rsa").with_suffix(".pub").read_text()
    ed25519 = "HostKey /etc/ssh/ssh_host_ed25519_key"
    changed(ed25519, f"{ed25519}\nHostKey /etc/ssh/rsa")
    controller.write(known=f"{ONE} {public}")
    assert controller.open("root@host1").run("id -u") == "0\n"


# --- ways to a host -------------------------------------------------------------------------------


def test_a_jump_host_is_between(controller: Controller) -> None:
    """ProxyJump: host2 sees host1 as its client; nodes behind it share one connection."""
    controller.write("Host host2\n  ProxyJump root@host1\n")
    sessions = controller.hosts["host1"].sessions
    wait_for(lambda: not sessions(), "the end of earlier tests' connections")
    with ThreadPoolExecutor(3) as pool:
        opened = list(pool.map(lambda _: controller.open("root@host2"), range(3)))
    assert [c.run("hostname; echo ${SSH_CONNECTION%% *}") for c in opened] == [
        f"host2\n{ONE}\n"
    ] * 3
    between = len(sessions())
    for each in opened:
        each.close()
    assert between == 1
    wait_for(lambda: not sessions(), "the jump's end")


def test_several_jumps_are_gone_through_in_order(controller: Controller) -> None:
    controller.write("Host host3\n  ProxyJump root@host1,root@host2\n")
    connection = controller.open("root@host3")
    assert connection.run("hostname; echo ${SSH_CONNECTION%% *}") == f"host3\n{TWO}\n"


def test_jumps_in_a_circle_end(controller: Controller) -> None:
    """``Host *`` with a ProxyJump means the jump host, too."""
    controller.write("Host *\n  ProxyJump root@host1\n")
    error = controller.refused("root@host2")
    assert isinstance(error, UnreachableError)
    assert "circle" in error.message


def test_a_jump_hosts_refusal_is_asked_for_once(controller: Controller) -> None:
    """Several nodes behind it are all told, but a person answers once."""
    controller.write("Host host2\n  ProxyJump bob@host1\n", identity="  IdentityFile none\n")
    person = Person(["wrong"] * 3)
    with ThreadPoolExecutor(3) as pool:
        errors = list(pool.map(lambda _: controller.refused("root@host2", ask=person), range(3)))
    assert {type(each) for each in errors} == {RefusedError}
    assert person.questions == ["password of bob@host1"] * 3


def test_a_proxy_command_is_the_connection(controller: Controller) -> None:
    """Its tokens are replaced; it has ended when the connection has."""
    options = f"-F {controller.config} -o BatchMode=yes"
    controller.write(f"Host host2\n  ProxyCommand ssh {options} -W %h:%p root@host1\n")
    connection = controller.open("root@host2")
    assert connection.run("echo ${SSH_CONNECTION%% *}") == f"{ONE}\n"
    connection.close()
    controller.write("Host host2\n  ProxyCommand false\n")
    error = controller.refused("root@host2")
    assert isinstance(error, UnreachableError)


def test_a_silent_peer_behind_a_jump_is_noticed(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel watches over the connection to the jump host only."""
    monkeypatch.setattr(route, "_IDLE", 1)
    monkeypatch.setattr(route, "_DEAD", 2)
    controller.write("Host host2\n  ProxyJump root@host1\n")
    connection = controller.open("root@host2")
    controller.hosts["host2"].cut()
    try:
        with pytest.raises(UnreachableError, match="the connection to node01 was lost"):
            connection.run("sleep 30")
    finally:
        controller.hosts["host2"].mend()


# --- hosts that do not answer ---------------------------------------------------------------------


def test_a_closed_port_is_unreachable(controller: Controller) -> None:
    """The message has address and port, the detail the kernel's words."""
    error = controller.refused("root@host1:23")
    assert isinstance(error, UnreachableError)
    assert error.message == f"cannot connect to {ONE}:23"
    assert error.detail == "Connection refused"


def test_a_network_without_a_route_is_unreachable(controller: Controller) -> None:
    error = controller.refused("root@203.0.113.1")
    assert isinstance(error, UnreachableError)
    assert error.detail == "Network is unreachable"


def test_a_host_that_is_off_is_unreachable(controller: Controller) -> None:
    """After ConnectTimeout."""
    controller.write("Host *\n  ConnectTimeout 1\n")
    controller.hosts["host3"].cut()
    try:
        error = controller.refused("root@host3")
    finally:
        controller.hosts["host3"].mend()
    assert isinstance(error, UnreachableError)
    assert error.detail in ("no answer within 1 s", "No route to host")


def test_an_unknown_name_is_unreachable(controller: Controller) -> None:
    error = controller.refused("root@no-such-host.invalid")
    assert isinstance(error, UnreachableError)
    assert error.message == "no address is known of no-such-host.invalid"


def test_a_port_of_something_else_is_unreachable(controller: Controller, host: Host) -> None:
    """A server that says something else than SSH."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # of the controller
        error = controller.refused(f"root@127.0.0.1:{port}")
        thread.join()
    assert isinstance(error, UnreachableError)
    assert error.message == f"127.0.0.1:{port} does not answer as an SSH server"


# --- becoming root --------------------------------------------------------------------------------


def test_sudo_without_a_password(controller: Controller) -> None:
    person = Person()
    connection = controller.open("alice@host1", ask=person)
    assert connection.run("id -u; pwd; umask; echo $SUDO_USER") == "0\n/\n0022\nalice\n"
    assert person.questions == []


def test_sudo_with_a_password(controller: Controller) -> None:
    """A wrong one is asked for again, and no program is taken for one."""
    person = Person(["wrong", PASSWORD])
    assert controller.open("bob@host1", ask=person).run("id -u") == "0\n"
    assert person.questions == ["sudo password of bob@host1"] * 2


def test_sudo_with_wrong_passwords(controller: Controller) -> None:
    """Three are enough; sudo's words are told, the passwords are not."""
    person = Person(["secret1", "secret2", "secret3", PASSWORD])
    error = controller.refused("bob@host1", ask=person)
    assert isinstance(error, RefusedError)
    assert len(person.questions) == 3
    assert error.message == "sudo refused to make bob root"
    assert "3 incorrect password attempts" in error.detail
    assert "NOPASSWD" in error.hint
    assert "secret" not in str(error.as_json())


def test_sudo_with_nobody_to_ask(controller: Controller) -> None:
    error = controller.refused("bob@host1")
    assert isinstance(error, RefusedError)
    assert error.message == "sudo wants a password of bob, and there is nobody to ask"


def test_sudo_for_who_may_not(controller: Controller) -> None:
    """dave's password is right, but he is not in the sudoers file."""
    error = controller.refused("dave@host1", ask=Person([PASSWORD]))
    assert isinstance(error, RefusedError)
    assert "dave is not in the sudoers file" in error.detail
    error = controller.refused(f"{CAROL.name}@host1", ask=Person(["any"] * 3))
    assert isinstance(error, RefusedError)


def test_who_is_refused_leaves_nothing(controller: Controller, host: Host) -> None:
    """Neither a connection nor a process on the host."""
    wait_for(lambda: not host.sessions(), "the end of earlier tests' connections")
    threads = threading.active_count()
    controller.refused("bob@host1")
    wait_for(lambda: not host.sessions(), "the connection's end")
    wait_for(lambda: threading.active_count() <= threads, "the threads' end")
    assert count(host, "sudo") == 0


def test_a_host_without_sudo(controller: Controller, host: Host) -> None:
    host.ok("mount --bind /dev/null /usr/bin/sudo")
    try:
        error = controller.refused("alice@host1")
    finally:
        host.ok("umount /usr/bin/sudo")
    assert isinstance(error, RefusedError)
    assert error.message == "there is no sudo, and alice is not root"


@pytest.fixture
def sudoers(host: Host) -> Iterator[Callable[[str], None]]:
    """Adds lines to host1's sudoers for one test."""
    file = host.files / "etc/sudoers"
    before = file.read_text()

    def add(text: str) -> None:
        file.write_text(before + text)

    yield add
    file.write_text(before)


def test_sudo_that_wants_a_terminal(controller: Controller, sudoers: Callable[[str], None]) -> None:
    """Red Hat's old default."""
    sudoers("Defaults requiretty\n")
    error = controller.refused("alice@host1")
    assert isinstance(error, RefusedError)
    assert "you must have a tty" in error.detail


def test_sudo_that_lectures(controller: Controller, sudoers: Callable[[str], None]) -> None:
    """What it says besides is no prompt; with the pty of `use_pty` and without."""
    sudoers("Defaults lecture=always, !use_pty, insults\n")
    person = Person(["wrong", PASSWORD])
    connection = controller.open("bob@host1", ask=person)
    assert connection.run("id -u") == "0\n"
    with connection.stream(["id", "-u"]) as stream:
        assert (stream.stdout.read(9), stream.wait()) == (b"0\n", 0)


@pytest.mark.parametrize("shell", ["/bin/bash", "/bin/dash", "/usr/local/bin/ash"])
def test_what_a_profile_prints_does_not_matter(
    controller: Controller, host: Host, shell: str
) -> None:
    """Nor what the login shell is."""
    passwd = host.files / "etc/passwd"
    before = passwd.read_text()
    noise = "echo welcome; echo 'hello there' >&2; printf 'half a line'\n"
    (host.files / "home/eve/.bashrc").write_text(noise)
    host.ok("mkdir -p /usr/local/bin")
    host.path("/usr/local/bin/ash").write_bytes(real_busybox().read_bytes())
    host.path("/usr/local/bin/ash").chmod(0o755)
    passwd.write_text(re.sub(r"(eve:.*):/bin/bash", rf"\1:{shell}", before))
    try:
        connection = controller.open("eve@host1")
        assert connection.run("id -u") == "0\n"
        with connection.stream(["sh", "-c", "echo out; echo err >&2"]) as stream:
            assert stream.wait() == 0
            assert (stream.stdout.read(99), stream.stderr.read(99)) == (b"out\n", b"err\n")
    finally:
        passwd.write_text(before)


# --- the root shell -------------------------------------------------------------------------------


def test_output_is_exact(controller: Controller) -> None:
    """Both outputs in their order, with or without a last newline, and whatever it is."""
    connection = controller.open("root@host1")
    cases = {
        "": "",
        "printf x": "x",
        "echo": "\n",
        "echo a; echo b >&2; printf c": "a\nb\nc",
        "printf 'ü\\n\\n'": "ü\n\n",
        "printf '\\377'": "\ufffd",
        "cat <<'end'\n$x ' \" \\\nend": "$x ' \" \\\n",
        "exit 3": "",
        "cd /tmp; x=1; pwd": "/tmp\n",
        "pwd; echo $x; cat": "/\n\n",
    }
    assert {program: connection.run(program) for program in cases} == cases
    assert connection.programs == len(cases)


def test_a_syntax_error_ends_the_program_only(controller: Controller) -> None:
    connection = controller.open("root@host1")
    assert "yntax error" in connection.run("if ( then")
    assert "nterminated" in connection.run("echo 'a")
    assert connection.run(") echo x (") != ""
    assert connection.run("echo fine") == "fine\n"


def test_lines_are_told_as_they_come(controller: Controller, host: Host) -> None:
    """The first is told while the program still waits for what follows from it."""
    connection = controller.open("root@host1")
    told: list[str] = []

    def line(text: str) -> None:
        told.append(text)
        if text == "first":
            host.ok("touch /run/go")

    program = "echo first; until [ -e /run/go ]; do sleep 0.01; done; echo; printf last"
    assert connection.run(program, line) == "first\n\nlast"
    assert told == ["first", "", "last"]


def test_big_programs_and_outputs(controller: Controller) -> None:
    """More than any buffer in between."""
    connection = controller.open("alice@host1")
    words = "x" * 3_000_000
    assert connection.run(f"cat <<'end'\n{words}\nend\n") == f"{words}\n"
    told: list[str] = []
    output = connection.run("seq 300000", told.append)
    assert told == [str(n) for n in range(1, 300_001)]
    assert output == "\n".join(told) + "\n"


def test_threads_take_turns(controller: Controller) -> None:
    connection = controller.open("root@host1")
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda n: connection.run(f"echo {n}; sleep 0.01; echo {n}"), "abcdef")
        )
    assert found == [f"{n}\n{n}\n" for n in "abcdef"]


def test_daemons_neither_delay_nor_end(controller: Controller, host: Host) -> None:
    """What a program leaves in the background lives on without the connection."""
    connection = controller.open("alice@host1")
    told = connection.run("setsid sleep 4242 </dev/null >/dev/null 2>&1 & echo $!")
    connection.close()
    name = f"cat /proc/{int(told)}/comm"  # `setsid`, until it has become sleep
    wait_for(lambda: host.run(name).stdout == "sleep\n", "the daemon, which lives on")
    host.ok(f"kill {int(told)}")


def test_the_root_shells_own_files_stay(controller: Controller, host: Host) -> None:
    """A lock: later programs' and daemons' parents hold it; it ends with the connection."""
    connection = controller.open("alice@host1")
    assert connection.run("exec 9>/run/lock/test; flock -n 9 && echo held", outer=True) == "held\n"
    assert connection.run("readlink /proc/self/fd/9") == "/run/lock/test\n"
    assert host.run("flock -n /run/lock/test true").returncode == 1
    connection.close()
    assert host.run("flock -n /run/lock/test true").returncode == 0


def test_output_that_nobody_waited_for_is_skipped(controller: Controller) -> None:
    """Ctrl-C while a program runs: the next one's output is its own."""
    connection = controller.open("root@host1")

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        connection.run("echo one; echo two", stop)
    assert connection.run("echo three") == "three\n"


def test_a_broken_connection_is_told(controller: Controller, host: Host) -> None:
    """In the middle of a program; whatever is tried afterwards says the same."""
    connection = controller.open("root@host1")
    with pytest.raises(UnreachableError) as caught:
        connection.run("echo begun; sleep 30", lambda line: host.drop())
    assert caught.value.message == "the connection to node01 was lost"
    assert caught.value.where == "node01"
    assert caught.value.hint != ""
    with pytest.raises(UnreachableError, match="the connection to node01 was lost"):
        connection.run("echo")
    with pytest.raises(UnreachableError, match="the connection to node01 was lost"):
        connection.stream(["true"])
    with pytest.raises(UnreachableError, match="the connection to node01 was lost"):
        connection.put(Path(__file__), "/tmp/x", lambda done, total: None)


@pytest.mark.parametrize("user", ["root", "alice", "bob"])
def test_a_root_shell_that_ends_is_a_lost_connection(controller: Controller, user: str) -> None:
    """Somebody on the host killed it; no other takes its place."""
    connection = controller.open(f"{user}@host1", PASSWORD)
    with pytest.raises(UnreachableError) as caught:
        connection.run("kill -KILL $$")
    assert caught.value.detail == "its root shell ended"


def test_a_silent_peer_is_noticed(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cable is pulled; nobody says goodbye."""
    for name, seconds in (("_DEAD", 2), ("_IDLE", 1), ("_PROBE", 1)):
        monkeypatch.setattr(route, name, seconds)
    connection = controller.open("root@host3")
    try:
        with pytest.raises(UnreachableError) as caught:
            connection.run("echo x; sleep 60", lambda line: controller.hosts["host3"].cut())
    finally:
        controller.hosts["host3"].mend()
    assert caught.value.message == "the connection to node01 was lost"


def test_nothing_is_printed(controller: Controller, capfd: pytest.CaptureFixture[str]) -> None:
    """paramiko's log has no say on stderr."""
    connection = controller.open("root@host1")
    controller.hosts["host1"].drop()
    with pytest.raises(UnreachableError):
        connection.run("echo")
    controller.refused("root@host1:23")
    assert capfd.readouterr() == ("", "")


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["root", "alice", "bob"])
def test_a_stream_has_its_own_outputs_and_exit_code(controller: Controller, user: str) -> None:
    connection = controller.open(f"{user}@host1", PASSWORD)
    program = "id -u; printf 'e r' >&2; cat; exit 7"
    with connection.stream(["sh", "-c", program]) as stream:
        assert stream.wait() == 7
        assert (stream.stdout.read(99), stream.stdout.read(99)) == (b"0\n", b"")
        assert (stream.stderr.read(2), stream.stderr.read(2)) == (b"e ", b"r")
    with connection.stream(["sh", "-c", "cat >&2; kill -TERM $$"], stdin=True) as stream:
        stream.write(b"one\n")
        stream.end_input()
        assert stream.stderr.read(4) == b"one\n"  # root's shell may add that it was terminated
        assert stream.wait() == 128 + signal.SIGTERM
    with connection.stream(["no-such-program"]) as stream:
        assert stream.wait() == 127


def test_a_stream_does_not_stand_in_the_way(controller: Controller) -> None:
    """Programs of the root shell go on while it runs."""
    connection = controller.open("root@host1")
    with connection.stream(["cat"], stdin=True) as stream:
        assert connection.run("echo x") == "x\n"
        stream.write(b"y\n")
        assert stream.stdout.read(9) == b"y\n"


def test_big_streams_do_not_block(controller: Controller) -> None:
    """More than SSH's window on both outputs, whichever is read first, and on stdin."""
    connection = controller.open("alice@host1")
    size = 5_000_000
    program = f"head -c {size} /dev/zero >&2; head -c {size} /dev/zero"
    for first, second in (("stdout", "stderr"), ("stderr", "stdout")):
        with connection.stream(["sh", "-c", program]) as stream:
            assert drained(getattr(stream, first)) == size
            assert drained(getattr(stream, second)) == size
            assert stream.wait() == 0
    with connection.stream(["wc", "-c"], stdin=True) as stream:
        stream.write(bytes(size))
        stream.end_input()
        assert stream.stdout.read(99) == f"{size}\n".encode()


def drained(reader: Any) -> int:
    total = 0
    while data := reader.read(1 << 16):
        total += len(data)
    return total


def count(host: Host, command: str) -> int:
    return sum(each.command == command for each in host.processes())


@pytest.mark.parametrize("user", ["root", "alice", "bob"])
@pytest.mark.parametrize("end", ["close", "drop"])
def test_the_end_of_a_stream_ends_its_program(
    controller: Controller, host: Host, user: str, end: str
) -> None:
    """Even one that neither reads nor writes, and its children; or if the connection breaks."""
    connection = controller.open(f"{user}@host1", PASSWORD)
    stream = connection.stream(["sh", "-c", "echo ready; sleep 5151; :"])
    assert stream.stdout.read(99) == b"ready\n"
    wait_for(lambda: count(host, "sleep 5151") == 1, "the program")
    if end == "close":
        stream.close()
    else:
        host.drop()
        with pytest.raises(UnreachableError, match="the connection to node01 was lost"):
            stream.wait()
    wait_for(lambda: count(host, "sleep 5151") == 0, "the program's end")


def test_a_closed_stream_wakes_its_reader(controller: Controller) -> None:
    """A thread that waits for output sees its end."""
    connection = controller.open("root@host1")
    stream = connection.stream(["sleep", "60"])
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(r.read, 99) for r in (stream.stdout, stream.stderr)]
        stream.close()
        assert [each.result() for each in readers] == [b"", b""]


def test_writing_to_a_program_that_ended_is_a_broken_pipe(controller: Controller) -> None:
    connection = controller.open("root@host1")
    with connection.stream(["true"], stdin=True) as stream:
        assert stream.wait() == 0
        with pytest.raises(BrokenPipeError):
            stream.write(bytes(1 << 26))


def test_a_stream_that_sudo_refuses_says_so(
    controller: Controller, sudoers: Callable[[str], None]
) -> None:
    """sudo's rules may change while we are connected."""
    connection = controller.open("alice@host1")
    sudoers("alice ALL=(ALL:ALL) PASSWD: ALL\n")
    with connection.stream(["true"]) as stream:
        with pytest.raises(OperationError, match="cannot run true as root") as caught:
            stream.wait()
        assert "a password is required" in caught.value.detail


def test_a_stream_whose_password_is_right_no_more_says_so(
    controller: Controller, host: Host
) -> None:
    """bob's was changed while we are connected."""
    connection = controller.open("bob@host1", PASSWORD)
    shadow = host.files / "etc/shadow"
    before = shadow.read_text()
    shadow.write_text(re.sub(r"^bob:[^:]*", "bob:*", before, flags=re.MULTILINE))
    try:
        stream = connection.stream(["true"], stdin=True)
    finally:
        shadow.write_text(before)
    with pytest.raises(OperationError, match="cannot run true as root") as caught:
        stream.wait()
    assert "incorrect password" in caught.value.detail
    assert PASSWORD not in str(caught.value.as_json())


# --- terminals ------------------------------------------------------------------------------------

_TERMINAL = """\
import sys, termios
from vxlab.errors import VxlabError
from vxlab.ssh import Connection, relay
before = termios.tcgetattr(0)
connection = Connection.open("node01", sys.argv[1], ask=lambda question: "bobs-password")
try:
    code = connection.terminal(sys.argv[2:])
except VxlabError as error:
    print("error:", error)
    code = 68
finally:
    print("same" if termios.tcgetattr(0) == before else "changed")
connection.close()
sys.exit(code)
"""

_RELAY = """\
import sys
import termios
from vxlab.ssh import Connection, relay
connection = Connection.open("node01", sys.argv[1], ask=lambda question: None)
code = relay(connection.stream(sys.argv[2:], stdin=True))
connection.close()
sys.exit(code)
"""


class Screen:
    """A program in a terminal of ours."""

    def __init__(self, *argv: str, size: tuple[int, int] = (24, 80)) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                termios.tcsetwinsize(0, size)
                os.environ["TERM"] = "vt220"
                os.execv(  # noqa: S606
                    sys.executable, [sys.executable, "-c", _TERMINAL, *argv]
                )
            finally:
                os._exit(127)
        self.seen = b""

    def until(self, words: str) -> str:
        """Wait until the words are on the screen; what was there before them."""
        while words.encode() not in self.seen:
            self._receive(words)
        before, _, self.seen = self.seen.partition(words.encode())
        return before.decode()

    def _receive(self, wanted: str) -> None:
        ready, _, _ = select.select([self.fd], [], [], 20)
        assert ready, f"no {wanted!r} after {self.seen!r}"
        data = os.read(self.fd, 4096)
        assert data, f"no {wanted!r} in {self.seen!r}"
        self.seen += data

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """Its exit code."""
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("user", ["root", "alice"])
def test_a_terminal_is_a_real_one(controller: Controller, user: str) -> None:
    """Size, type, resizing, Ctrl-C, exit code; ours is as before afterwards."""
    program = 'trap "echo int" INT; trap "stty size" WINCH; tty; stty size; echo $TERM; id -u; '
    screen = Screen(
        f"{user}@host1",
        "bash",
        "-c",
        program + "until read -t 0.1 x; do :; done; exit 5",
        size=(33, 77),
    )
    screen.until("/dev/pts/")
    screen.until("33 77")
    screen.until("vt220")
    screen.until("0\r\n")
    termios.tcsetwinsize(screen.fd, (44, 99))
    screen.until("44 99")
    screen.type("\x03")
    screen.until("int")
    screen.type("a\r")
    screen.until("same")
    assert screen.end() == 5


def test_ctrl_c_ends_a_program_with_its_code(controller: Controller) -> None:
    """130, as in a shell here."""
    screen = Screen("root@host1", "sh", "-c", "echo ready; exec sleep 60")
    screen.until("ready")
    screen.type("\x03")
    screen.until("same")
    assert screen.end() == 130


def test_sudo_gets_its_password_in_the_terminal_too(controller: Controller) -> None:
    """It was typed once, when the connection was opened; nobody has to type it again."""
    screen = Screen("bob@host1", "sh", "-c", "echo root-$(id -u); exit 3")
    assert "password" not in screen.until("root-0")
    screen.until("same")
    assert screen.end() == 3


def test_a_terminal_is_set_right_when_the_connection_breaks(
    controller: Controller, host: Host
) -> None:
    screen = Screen("root@host1", "sh", "-c", "echo ready; exec sleep 60")
    screen.until("ready")
    host.drop()
    screen.until("error: the connection to node01 was lost")
    screen.until("same")
    assert screen.end() == 68


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_is_set_right_when_we_are_ended(
    controller: Controller, number: signal.Signals
) -> None:
    screen = Screen("root@host1", "sh", "-c", "echo ready; exec sleep 60")
    screen.until("ready")
    os.kill(screen.pid, number)
    screen.until("same")
    assert screen.end() == 128 + number


def test_a_stream_may_be_ours(controller: Controller) -> None:
    """`relay`: our stdin, stdout, stderr and exit code, binary and big."""
    data = os.urandom(3_000_000)
    program = "cat; echo err >&2; exit 9"
    command = [sys.executable, "-c", _RELAY, "root@host1", "sh", "-c", program]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (9, b"err\n")
    assert done.stdout == data


def test_a_relay_ends_with_its_program(controller: Controller) -> None:
    """Though our stdin is still open."""
    command = [sys.executable, "-c", _RELAY, "root@host1", "echo", "x"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"x\n"
        assert process.wait(20) == 0


# --- files ----------------------------------------------------------------------------------------


def test_a_file_arrives(controller: Controller, host: Host, tmp_path: Path) -> None:
    """As the login user's; progress goes up to its size."""
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1_000_000))
    steps: list[tuple[int, int]] = []
    controller.open("alice@host1").put(source, "/tmp/put", lambda *step: steps.append(step))
    assert host.path("/tmp/put").read_bytes() == source.read_bytes()
    assert host.ok("stat -c %U /tmp/put") == "alice\n"
    assert steps == sorted(steps)
    assert steps[-1] == (1_000_000, 1_000_000)


def test_a_full_disk_is_told(controller: Controller, host: Host, tmp_path: Path) -> None:
    """In the host's words, which are few; the hint says how much room it takes."""
    source = tmp_path / "source"
    source.write_bytes(bytes(3 << 20))
    host.ok("mount -t tmpfs -o size=64k tiny /mnt")
    try:
        with pytest.raises(OperationError) as caught:
            controller.open("root@host1").put(source, "/mnt/x", lambda done, total: None)
    finally:
        host.ok("umount /mnt")
    assert caught.value.message == "cannot write /mnt/x"
    assert caught.value.detail == "Failure"
    assert "3 MiB" in caught.value.hint


def test_a_place_that_may_not_be_written_is_told(controller: Controller) -> None:
    connection = controller.open("alice@host1")
    with pytest.raises(OperationError) as caught:
        connection.put(Path(__file__), "/root/x", lambda done, total: None)
    assert caught.value.detail == "Permission denied"


def test_a_host_without_sftp_is_told(
    controller: Controller, changed: Callable[[str, str], None]
) -> None:
    changed("Subsystem sftp internal-sftp", "")
    connection = controller.open("root@host1")
    with pytest.raises(OperationError, match="SFTP") as caught:
        connection.put(Path(__file__), "/tmp/x", lambda done, total: None)
    assert "Subsystem" in caught.value.hint
    assert connection.run("echo alive") == "alive\n"


def test_a_host_that_allows_one_channel_says_so(
    controller: Controller, changed: Callable[[str, str], None]
) -> None:
    """MaxSessions 1: the root shell is that one."""
    changed("MaxSessions 100", "MaxSessions 1")
    connection = controller.open("root@host1")
    with pytest.raises(OperationError, match="refuses another channel") as caught:
        connection.stream(["true"])
    assert "MaxSessions" in caught.value.hint
    assert connection.run("echo alive") == "alive\n"
