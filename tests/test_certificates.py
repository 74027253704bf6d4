"""The lab's own certificates: who they are for, for how long, and who is refused with them."""

from __future__ import annotations

import os
import shlex
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

import talk
from kernel import KERNEL
from lablib import LAB
from vxlab import binaries, certificates, labfile
from vxlab.ops import StartDaemon
from vxlab.state import State
from vxlab.steps import BY_NAME, tls

LAB_OF_THREE = labfile.loads(
    """
name: ssh
underlay: {mtu: 1500}
etcd: {node: node02}
nodes:
  node01: {ssh: one, address: 192.168.56.21/24}
  node02: {ssh: two, address: 192.168.56.22/24}
  node03: {ssh: three, address: 192.168.56.23/24}
""",
    "ssh.yaml",
)
Files = Mapping[str, Mapping[str, str]]


@pytest.fixture(scope="module")
def made() -> Files:
    return certificates.make(LAB_OF_THREE)


def certificate(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())


def everyone(made: Files) -> dict[str, x509.Certificate]:
    """All certificates but the authority's, by node and file."""
    return {
        f"{node}/{name}": certificate(text)
        for node, files in made.items()
        for name, text in files.items()
        if name in (tls.CLIENT[0], tls.SERVER[0])
    }


def authority(made: Files) -> x509.Certificate:
    (text,) = {files[tls.CA] for files in made.values()}
    return certificate(text)


# --- what is in them ------------------------------------------------------------------------------


def test_every_host_has_its_files(made: Files) -> None:
    """Those that the `tls` step puts there, and no others."""
    assert {node: set(files) for node, files in made.items()} == {
        node.name: set(tls.files(LAB_OF_THREE, node)) for node in LAB_OF_THREE.nodes
    }


def test_all_are_signed_by_the_one_authority(made: Files) -> None:
    """One CA for all hosts; the CA by itself."""
    ca = authority(made)
    for each in (ca, *everyone(made).values()):
        each.verify_directly_issued_by(ca)


def test_every_key_is_its_certificates_and_nobody_elses(made: Files) -> None:
    """No two hosts share a key."""
    seen = set()
    for files in made.values():
        for cert, key in (tls.CLIENT, tls.SERVER):
            if cert in files:
                private = load_pem_private_key(files[key].encode(), None)
                assert private.public_key() == certificate(files[cert]).public_key()
                seen.add(files[key])
    assert len(seen) == len(everyone(made)) == 4


def test_the_authoritys_key_is_nowhere(made: Files) -> None:
    """Who has it could make certificates of his own; it signs once and is forgotten."""
    ca = authority(made).public_key()
    keys = [text for files in made.values() for text in files.values() if "PRIVATE" in text]
    assert len(keys) == 4
    assert [k for k in keys if load_pem_private_key(k.encode(), None).public_key() == ca] == []
    names = {name for files in made.values() for name, text in files.items() if "PRIVATE" in text}
    assert names == {tls.CLIENT[1], tls.SERVER[1]}


def test_a_new_authority_every_time(made: Files) -> None:
    """What an earlier lab's certificates were for ended with it."""
    again = certificates.make(LAB_OF_THREE)
    assert authority(again).public_key() != authority(made).public_key()
    serials = {each.serial_number for files in (made, again) for each in everyone(files).values()}
    assert len(serials) == 8


def test_a_hosts_clock_does_not_matter(made: Files) -> None:
    """From the first second of Unix time to the last that X.509 can say."""
    for each in (authority(made), *everyone(made).values()):
        assert each.not_valid_before_utc == datetime(1970, 1, 1, tzinfo=UTC)
        assert each.not_valid_after_utc == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_what_each_may_be_used_for(made: Files) -> None:
    """Only the CA signs; clients are clients; etcd is a client, too, of its own gateway."""
    uses = {
        name: set(each.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        for name, each in everyone(made).items()
    }
    client = {Usage.CLIENT_AUTH}
    assert uses == {
        "node01/client.pem": client,
        "node02/client.pem": client,
        "node03/client.pem": client,
        "node02/server.pem": {Usage.CLIENT_AUTH, Usage.SERVER_AUTH},
    }
    for each in (authority(made), *everyone(made).values()):
        mine = each.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = each.extensions.get_extension_for_class(x509.KeyUsage)
        is_ca = each == authority(made)
        assert (mine.critical, mine.value.ca) == (True, is_ca)
        assert (usage.critical, usage.value.key_cert_sign) == (True, is_ca)


def test_the_server_has_the_names_that_it_is_called_by(made: Files) -> None:
    """Its underlay address, for flannelds; loopback, for etcdctl on its own host."""
    (server,) = (each for name, each in everyone(made).items() if "server" in name)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [
        IPv4Address("192.168.56.22"),
        IPv4Address("127.0.0.1"),
    ]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


# --- a handshake ----------------------------------------------------------------------------------


def write(directory: Path, files: Mapping[str, str]) -> Path:
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
    return directory


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, address: str) -> str:
    """Have a client talk to a server at an address: who refuses it, and why; empty if nobody."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = {
        "client": client.wrap_bio(down, up, server_hostname=address),
        "server": server.wrap_bio(up, down, server_side=True),
    }
    waiting = set(sides)
    for _ in range(6):
        for who, side in sides.items():
            try:
                if who in waiting:
                    side.do_handshake()
                    waiting.discard(who)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return f"{who}: {error}"
    assert waiting == set()
    return ""


def context(protocol: int, ca: Path, pair: tuple[Path, Path] | None) -> ssl.SSLContext:
    """One side that insists on the other's certificate, as strict as OpenSSL can be."""
    made = ssl.SSLContext(protocol)
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(ca)
    if pair:
        made.load_cert_chain(*pair)
    return made


def refused(
    tmp_path: Path,
    made: Files,
    client: Mapping[str, str],
    address: str,
    *,
    names: tuple[str, str] = tls.CLIENT,
    server: tuple[str, str] = tls.SERVER,
    bare: bool = False,
) -> str:
    """How a handshake of node02's server and a host's client ends."""
    here, there = write(tmp_path / "server", made["node02"]), write(tmp_path / "client", client)
    pair = None if bare else (there / names[0], there / names[1])
    return handshake(
        context(ssl.PROTOCOL_TLS_SERVER, here / tls.CA, (here / server[0], here / server[1])),
        context(ssl.PROTOCOL_TLS_CLIENT, there / tls.CA, pair),
        address,
    )


@pytest.mark.parametrize("address", ["192.168.56.22", "127.0.0.1", "localhost"])
@pytest.mark.parametrize("node", ["node01", "node02"])
def test_who_belongs_to_the_lab_is_served(
    tmp_path: Path, made: Files, node: str, address: str
) -> None:
    """Both prove who they are, under every name of the server."""
    assert refused(tmp_path, made, made[node], address) == ""


def test_who_has_no_certificate_is_refused(tmp_path: Path, made: Files) -> None:
    """Knowing the authority is not enough."""
    said = refused(tmp_path, made, made["node01"], "192.168.56.22", bare=True)
    assert said.startswith("server: ")
    assert "did not return a certificate" in said


def test_another_labs_client_is_refused(tmp_path: Path, made: Files) -> None:
    """Its authority is another one, although it has the same name."""
    other = certificates.make(LAB_OF_THREE)["node01"]
    client = {**other, tls.CA: made["node01"][tls.CA]}
    said = refused(tmp_path, made, client, "192.168.56.22")
    assert said.startswith("server: ")
    assert "verify failed" in said


def test_a_server_elsewhere_is_refused(tmp_path: Path, made: Files) -> None:
    """Who took over another address is not etcd there."""
    said = refused(tmp_path, made, made["node01"], "192.168.56.21")
    assert said.startswith("client: ")
    assert "IP address mismatch" in said


def test_a_client_is_no_server(tmp_path: Path, made: Files) -> None:
    """A host whose key was stolen cannot play etcd for the others."""
    said = refused(tmp_path, made, made["node01"], "192.168.56.22", server=tls.CLIENT)
    assert said.startswith("client: ")
    assert "unsuitable certificate purpose" in said


# --- the real etcd --------------------------------------------------------------------------------

_SCRIPT = """\
ip link set lo up; ip addr add 192.168.56.22/24 dev lo; ip addr add 192.168.56.99/24 dev lo
cd {here}; mkdir run
{etcd} >etcd.log 2>&1 &
ask() {{ env ETCDCTL_API=3 {ctl} --command-timeout=1s --dial-timeout=1s "$@" >>ctl.log 2>&1; }}
mine() {{ ask --cacert=node01/ca.pem --cert=node01/client.pem --key=node01/client-key.pem "$@"; }}
n=0; until mine --endpoints=https://127.0.0.1:2379 endpoint health; do
  n=$((n + 1)); [ $n -lt 20 ] || {{ cat etcd.log; exit 1; }}; sleep 0.05; done
tell() {{ w=$1; shift; if "$@"; then echo "$w: served"; else echo "$w: refused"; fi; }}
u=https://192.168.56.22:2379
tell client mine --endpoints=$u put a b
tell loopback mine --endpoints=https://127.0.0.1:2379 get a
tell nobody ask --endpoints=$u --cacert=node01/ca.pem get a
tell plain ask --endpoints=http://192.168.56.22:2379 get a
tell stranger ask --endpoints=$u --cacert=node01/ca.pem --cert=other/client.pem \\
  --key=other/client-key.pem get a
tell elsewhere mine --endpoints=https://192.168.56.99:2379 get a
"""


@LAB[0]
@LAB[1]
@KERNEL[1]
def test_the_real_etcd_serves_only_the_lab(tmp_path: Path, made: Files) -> None:
    """The command of the step, with these files: the lab's clients and no others."""
    found = binaries.find(lambda line: None)
    if found.etcdctl is None:
        pytest.skip("NOT TRIED: there is no etcdctl")
    for node, files in made.items():
        write(tmp_path / node, files)
    write(tmp_path / "other", certificates.make(LAB_OF_THREE)["node01"])
    lab = LAB_OF_THREE
    states = {node.name: State() for node in lab.nodes}
    (start,) = BY_NAME["etcd"].plan(talk.site(lab), lab.etcd_node, states)
    assert isinstance(start, StartDaemon)
    words = [
        word.replace("/opt/etcd", str(found.etcd.path))
        .replace(f"{tls.directory(lab)}/tls", "node02")
        .replace("/run/etcd", "run")
        # A second address, at which it is listened to but for which there is no certificate.
        .replace(",https://127", ",https://192.168.56.99:2379,https://127")
        for word in start.command
    ]
    script = _SCRIPT.format(here=tmp_path, etcd=shlex.join(words), ctl=found.etcdctl.path)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    private = ["unshare", *user, "--net", "--pid", "--fork", "--kill-child", "sh", "-c", script]
    done = subprocess.run(private, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.splitlines(), done.stderr) == (
        [
            "client: served",
            "loopback: served",
            "nobody: refused",
            "plain: refused",
            "stranger: refused",
            "elsewhere: refused",
        ],
        "",
    )


@pytest.mark.skipif(shutil.which("openssl") is None, reason="NOT TRIED: there is no openssl")
@pytest.mark.parametrize("at", ["1", "1000000000", "32503680000"])
def test_openssl_finds_no_fault(tmp_path: Path, made: Files, at: str) -> None:
    """The chain at any time: 1970, 2001, 3000."""
    for node, files in made.items():
        write(tmp_path / node, files)
    strict = ["openssl", "verify", "-x509_strict", "-attime", at, "-CAfile", "node01/ca.pem"]
    server = [*strict, "-purpose", "sslserver", "-verify_ip", "192.168.56.22", "node02/server.pem"]
    clients = [f"{node}/client.pem" for node in made]
    client = [*strict, "-purpose", "sslclient", *clients, "node02/server.pem"]
    for words in (server, client):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
