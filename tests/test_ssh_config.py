"""The pure parts of SSH: targets, configuration, known hosts, key files, command lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vxlab.errors import RefusedError, UnreachableError, UsageError
from vxlab.ssh import config, hostkeys, identities, words
from vxlab.ssh.config import Settings
from vxlab.ssh.hostkeys import HostKeys, Key

ONE, OTHER = Key("ssh-ed25519", b"\0\0\0\x0bone"), Key("ssh-ed25519", b"\0\0\0\x0bother")
RSA = Key("ssh-rsa", b"\0\0\0\x07rsa")


def test_paramiko_is_not_loaded_before_the_first_connection() -> None:
    """`vxlab --help` costs nothing of SSH."""
    code = "import sys, vxlab.ssh; print('paramiko' in sys.modules, 'cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("node01", ("", "node01", 0)),
        ("root@node01", ("root", "node01", 0)),
        ("root@192.168.56.11:2222", ("root", "192.168.56.11", 2222)),
        ("DOMAIN\\me@x@node01", ("DOMAIN\\me@x", "node01", 0)),
        ("[fe80::1%eth0]:22", ("", "fe80::1%eth0", 22)),
        ("root@[::1]", ("root", "::1", 0)),
        ("root@fd00::5:22", ("root", "fd00::5:22", 0)),
    ],
)
def test_a_target_names_user_host_and_port(target: str, expected: tuple[str, str, int]) -> None:
    """An IPv6 address is whole unless it is in brackets."""
    assert config.split(target) == expected


@pytest.mark.parametrize(
    "target",
    [
        *("", "@node01", "root@", "-oProxyCommand=x", "root@-x", "a b", "node01:", "node01:x"),
        *("node01:70000", "[::1", "ssh://node01"),
    ],
)
def test_what_is_no_target_is_refused(target: str) -> None:
    """Above all what ``ssh`` would take for an option."""
    with pytest.raises(UsageError, match="no host to log in to"):
        config.split(target)


# --- configuration --------------------------------------------------------------------------------

_EVERYTHING = """\
Host deep
  HostName 10.9.8.7
  Port 2200
  User alice
  IdentityFile "{tmp}/key of %r"
  IdentitiesOnly yes
  IdentityAgent {tmp}/agent-%h
  HostKeyAlias deep-key
  UserKnownHostsFile {tmp}/known-%n {tmp}/second
  HashKnownHosts yes
  ConnectTimeout 3
  AddressFamily inet
Host far
  ProxyJump bob@near:2201,nearer
Host piped
  ProxyCommand relay --port %p %h %%
Host vagrant
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
"""


@pytest.fixture(params=["ssh", "paramiko"])
def configured(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A configuration, read by ``ssh -G`` or by paramiko."""
    if request.param == "paramiko":
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif shutil.which("ssh") is None:
        pytest.skip("NO ssh HERE")
    file = tmp_path / "config"
    file.write_text(_EVERYTHING.format(tmp=tmp_path))
    monkeypatch.setenv("VXLAB_SSH_CONFIG", str(file))
    return tmp_path


def test_the_users_configuration_decides(configured: Path) -> None:
    """Address, port, user, keys, agent, key alias and known hosts, with OpenSSH's tokens."""
    found = config.resolve("node01", "deep")
    assert found == Settings(
        host="deep",
        address="10.9.8.7",
        port=2200,
        user="alice",
        alias="deep-key",
        agent=f"{configured}/agent-10.9.8.7",
        identities=(configured / "key of alice",),
        only=True,
        known=(configured / "known-deep", configured / "second"),
        everywhere=found.everywhere,
        hashed=True,
        timeout=3.0,
        family=found.family,
    )
    assert (found.place, found.login, found.family.name) == (  # type: ignore[attr-defined]
        "10.9.8.7:2200",
        "alice@deep",
        "AF_INET",
    )


def test_the_target_comes_before_the_configuration(configured: Path) -> None:
    """As on ``ssh``'s command line."""
    found = config.resolve("node01", "carol@deep:22")
    assert (found.user, found.port, found.address) == ("carol", 22, "10.9.8.7")


def test_jumps_and_proxy_commands(configured: Path) -> None:
    """The nearest jump first; a way that is given takes the configuration's place."""
    far = config.resolve("node01", "far")
    assert (far.jumps, far.proxy) == (("bob@near:2201", "nearer"), "")
    assert config.resolve("node01", "far", jumps=["x"]).jumps == ("x",)
    piped = config.resolve("node01", "piped")
    assert (piped.jumps, piped.proxy) == ((), "relay --port 22 piped %")
    assert config.resolve("node01", "piped", jumps=["x"]).proxy == ""


def test_vagrants_dev_null_is_not_believed(configured: Path) -> None:
    """Its hosts' keys are remembered where others are: strictness is not the configuration's."""
    assert config.resolve("node01", "vagrant").known == (config.home() / ".ssh" / "known_hosts",)


def test_defaults(configured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that the configuration does not name is what it is called; 10 s to answer."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    found = config.resolve("node01", "root@other")
    assert (found.address, found.port, found.user) == ("other", 22, "root")
    assert (found.timeout, found.agent, found.only, found.jumps) == (10.0, "/run/agent", False, ())
    assert config.home() / ".ssh" / "id_ed25519" in found.identities
    assert found.known[0] == config.home() / ".ssh" / "known_hosts"


def test_a_configuration_that_cannot_be_read_is_an_error(
    configured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the words of who read it."""
    monkeypatch.setenv("VXLAB_SSH_CONFIG", str(configured / "missing"))
    with pytest.raises(UnreachableError) as caught:
        config.resolve("node01", "deep")
    assert caught.value.where == "node01"
    assert "No such file" in caught.value.detail


@pytest.mark.parametrize(
    ("said", "expected"),
    [("none", ""), ("SSH_AUTH_SOCK", "/a"), ("$MINE", "/b"), ("${MINE}/x", "/b/x")],
)
def test_the_agents_socket(said: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh_config(5), IdentityAgent."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/a")
    monkeypatch.setenv("MINE", "/b")
    assert config.settings("x", {"identityagent": [said]}).agent == expected


# --- known hosts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "name", "expected"),
    [
        ("host1", "host1", True),
        ("host1,host2", "host2", True),
        ("HOST1", "host1", True),
        ("host*", "host1", True),
        ("host?", "host10", False),
        ("*,!host1", "host1", False),
        ("!host2,*", "host1", True),
        ("[host1]:2222", "[host1]:2222", True),
        ("[host1]:2222", "h", False),
        ("[ab]", "a", False),
        ("host1", "xhost1", False),
        ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "192.168.1.61", True),
        ("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=", "192.168.1.62", False),
        ("|1|broken", "host1", False),
        ("|1|%%%|x", "host1", False),
    ],
)
def test_names_of_known_hosts(names: str, name: str, expected: bool) -> None:
    """sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: wildcards, negation, hashes; `[` is not special."""
    assert hostkeys.means(names, name) is expected


def known(tmp_path: Path, text: str, **more: object) -> HostKeys:
    file = tmp_path / "known_hosts"
    file.write_text(text)
    return HostKeys("node01", settings(tmp_path, **more))


def settings(tmp_path: Path, **more: object) -> Settings:
    words = {"host": "h", "address": "host1", "port": 22, "user": "root"}
    words |= {"known": (tmp_path / "known_hosts",), **more}
    return Settings(**words)  # type: ignore[arg-type]


def test_the_known_key_is_accepted(tmp_path: Path) -> None:
    """Comments, other hosts, broken lines and keys of other types do not matter."""
    text = f"# x\n\nhost2 {OTHER.line}\nhost1 ssh-ed25519 %%%\nhost1\nhost1 {RSA.line}\n"
    known(tmp_path, f"{text}host1 {ONE.line} comment\n").check(ONE, accept_new=False)


def test_an_unknown_key_is_refused_with_what_accepts_it(tmp_path: Path) -> None:
    """The line in the hint is the one that the file lacks."""
    keys = known(tmp_path, f"host2 {ONE.line}\n")
    with pytest.raises(RefusedError, match="of host1:22 is not known") as caught:
        keys.check(ONE, accept_new=False)
    assert caught.value.detail == f"ssh-ed25519 {ONE.fingerprint}"
    assert f"{tmp_path}/known_hosts\nhost1 {ONE.line}\n" in caught.value.hint
    assert "--accept-new-host-keys" in caught.value.hint
    known(tmp_path, f"host1 {ONE.line}\n").check(ONE, accept_new=False)


@pytest.mark.parametrize("accept_new", [False, True])
def test_a_changed_key_is_always_refused(tmp_path: Path, accept_new: bool) -> None:
    """With both fingerprints, and what forgets the old one; also if the new one's type is new."""
    for key in (OTHER, RSA):
        keys = known(tmp_path, f"host1 {ONE.line}\n")
        with pytest.raises(RefusedError, match="has changed") as caught:
            keys.check(key, accept_new=accept_new)
        assert key.fingerprint in caught.value.detail
        assert f"{ONE.fingerprint} ({tmp_path}/known_hosts, line 1)" in caught.value.detail
        assert f"ssh-keygen -R 'host1' -f {tmp_path}/known_hosts" in caught.value.hint
    assert (tmp_path / "known_hosts").read_text() == f"host1 {ONE.line}\n"


def test_a_revoked_key_is_refused(tmp_path: Path) -> None:
    """Even if another line knows it."""
    keys = known(tmp_path, f"host1 {ONE.line}\n@revoked * {ONE.line}\n")
    with pytest.raises(RefusedError, match="was revoked"):
        keys.check(ONE, accept_new=True)


def test_a_certificate_authoritys_key_is_no_hosts_key(tmp_path: Path) -> None:
    """Only certificates could be checked with it."""
    with pytest.raises(RefusedError, match="is not known"):
        known(tmp_path, f"@cert-authority * {ONE.line}\n").check(ONE, accept_new=False)


def test_a_new_key_is_remembered_in_a_private_file(tmp_path: Path) -> None:
    """Like OpenSSH's accept-new: the file 0600, its directory 0700, nothing written twice."""
    file = tmp_path / "made" / "known_hosts"
    there = settings(tmp_path, known=(file,), port=2222)
    for _ in range(2):
        HostKeys("node01", there).check(ONE, accept_new=True)
    assert file.read_text() == f"[host1]:2222 {ONE.line}\n"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_new_key_does_not_join_a_line_without_an_end(tmp_path: Path) -> None:
    known(tmp_path, f"host2 {OTHER.line}").check(ONE, accept_new=True)
    text = (tmp_path / "known_hosts").read_text()
    assert text == f"host2 {OTHER.line}\nhost1 {ONE.line}\n"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="NO ssh-keygen HERE")
def test_hashed_names_are_openssh_s(tmp_path: Path) -> None:
    """HashKnownHosts: ``ssh-keygen -F`` finds what was written, and nothing tells the name."""
    known(tmp_path, "", hashed=True).check(ONE, accept_new=True)
    text = (tmp_path / "known_hosts").read_text()
    assert text.startswith("|1|")
    assert "host1" not in text
    command = ["ssh-keygen", "-F", "host1", "-f", str(tmp_path / "known_hosts")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "found: line 1" in done.stdout
    HostKeys("node01", settings(tmp_path)).check(ONE, accept_new=False)


def test_a_file_that_cannot_be_written_refuses_a_new_key(tmp_path: Path) -> None:
    there = settings(tmp_path, known=(tmp_path,))
    with pytest.raises(RefusedError, match="cannot be remembered") as caught:
        HostKeys("node01", there).check(ONE, accept_new=True)
    assert caught.value.detail == f"{tmp_path}: Is a directory"


def test_a_key_known_without_its_port_is_accepted(tmp_path: Path) -> None:
    """As ssh does; but it does not make another key a changed one."""
    keys = known(tmp_path, f"host1 {ONE.line}\n", port=2222)
    keys.check(ONE, accept_new=False)
    with pytest.raises(RefusedError, match="is not known"):
        keys.check(OTHER, accept_new=False)


def test_a_key_alias_has_no_port(tmp_path: Path) -> None:
    """ssh_config(5), HostKeyAlias."""
    keys = known(tmp_path, f"mine {ONE.line}\n", port=2222, alias="mine")
    keys.check(ONE, accept_new=False)


def test_known_types_are_preferred(tmp_path: Path) -> None:
    """Else a host with several keys would look changed; RSA's algorithms share a key type."""
    offered = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
    assert known(tmp_path, "").preferred(offered) == offered
    assert known(tmp_path, f"host1 {RSA.line}\n").preferred(offered) == (
        *("rsa-sha2-512", "rsa-sha2-256"),
        *("ssh-ed25519", "ecdsa-sha2-nistp256"),
    )


# --- key files ------------------------------------------------------------------------------------


def keygen(path: Path, *options: str) -> Path:
    command = ["ssh-keygen", "-q", "-N", "", "-C", "test", "-f", str(path), *options]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="NO ssh-keygen HERE")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("form", ["RFC4716", "PEM"])
def test_a_key_file_tells_its_public_half_and_whether_it_is_locked(
    tmp_path: Path, kind: str, form: str
) -> None:
    """A locked key is not asked for before the agent's keys and the open ones were tried."""
    path = keygen(tmp_path / "key", "-t", kind, "-m", form)
    public = identities.parse(path, path.with_suffix(".pub").read_bytes()).public
    found = identities.read(path)
    assert found == identities.Identity(path, public, private=True, locked=False)
    assert identities.load(found).asbytes() == public
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", path, "-m", form], check=True)
    locked = identities.read(path)
    assert locked == identities.Identity(path, public, private=True, locked=True)
    assert identities.load(locked, "secret").asbytes() == public
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words differ
        identities.load(locked, "wrong")


def test_a_file_that_is_no_key_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("nonsense\n")
    found = identities.read(path)
    assert found is not None
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words differ
        identities.load(found)
    assert identities.read(tmp_path / "missing") is None


# --- command lines --------------------------------------------------------------------------------

_SHELLS = [shell for shell in ("dash", "bash", "zsh", "fish", "csh", "tcsh") if shutil.which(shell)]


@pytest.mark.parametrize("shell", [*_SHELLS, "busybox"])
def test_a_program_reaches_every_login_shell_unchanged(shell: str) -> None:
    """Quotes, backslashes, newlines, ``!``, ``$`` and bytes beyond ASCII."""
    if shell == "busybox" and shutil.which("busybox") is None:
        pytest.skip("NO busybox HERE")
    text = 'it\'s "quoted" \\n \\\\ $HOME `x` !! * ~ % ü \t end'
    program = f"printf '%s|' {words.line([text, 'two' + chr(10) + 'lines', ''])}; exit 7\n"
    login = ["busybox", "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*login, "-c", words.command(program)],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, b"")
    assert done.stdout.decode() == f"{text}|two\nlines||"


def test_a_command_line_has_nothing_that_shells_disagree_about() -> None:
    """What cannot be tried here (csh, fish): one line, no quotes within the quotes."""
    text = words.command("a 'b' \"c\" \\ !\nd $(e)\n")
    assert text.startswith('sh -c \'eval "$(printf %b "')
    inside = text.removeprefix('sh -c \'eval "$(printf %b "').removesuffix('")"\'')
    assert not set(inside) & set("'\"!\n$`")
