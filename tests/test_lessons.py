"""The lessons: each word finds its own, each text is short, and the tables are told as they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Interface
from typing import Any

import pytest

import talk
from golden import agrees
from vxlab import labfile
from vxlab.errors import UsageError
from vxlab.lab import Lab
from vxlab.lessons import LESSONS, Lesson, exists_in, find
from vxlab.lessons.seen import seen
from vxlab.lessons.told import Line, sentence, tell
from vxlab.lessons.typed import commands, example_site, example_states, looked
from vxlab.lessons.way import Way, best_route, between
from vxlab.state import FdbEntry, Neighbour, Net, Route, State, UdpSocket
from vxlab.steps import BY_NAME, STEPS, steps_of

States = dict[str, State]

BACKENDS = {
    "vxlan": "",
    "host-gw": "overlay: {backend: {Type: host-gw}}",
    "direct": "overlay: {backend: {Type: vxlan, DirectRouting: true}}",
    "udp": "overlay: {backend: {Type: udp}}",
    "vni": "overlay: {backend: {Type: vxlan, VNI: 42, Port: 4789}}",
    "three": "nodes: {node01: {containers: 2}, node02: , node03: }",
}

EVERY = pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.name for lesson in LESSONS])


def lab_of(name: str) -> Lab:
    return labfile.loads(f"name: {name}\n{BACKENDS[name]}", f"{name}.yaml")


def up(lab: Lab = talk.TALK) -> States:
    """A lab that works, with what a kernel adds to it: routes to networks that are on a link.

    And the udp backend's socket, which is flanneld's.
    """
    udp = lab.overlay.backend_type == "udp"
    socket = (UdpSocket(8285, 'users:(("flanneld",pid=34,fd=9))'),)
    return {
        name: replace(state, net=_connected(state.net), udp=socket if udp else state.udp)
        for name, state in talk.states(lab).items()
    }


def _connected(net: Net) -> Net:
    routes = tuple(
        Route(str(IPv4Interface(address).network), "", link.name, "kernel", "link")
        for link in net.links.values()
        for address in link.addresses
    )
    return replace(net, routes=(*net.routes, *routes))


# --- texts --------------------------------------------------------------------------------------


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=\.) ", text)


@EVERY
def test_a_text_is_short_and_says_where_to_look(lesson: Lesson) -> None:
    """At most six sentences a paragraph; a place to look at; every step is there."""
    for paragraph in lesson.text:
        assert (paragraph[-1], "``" in paragraph, "\n" in paragraph) == (".", False, False)
        assert 1 <= len(sentences(paragraph)) <= 6
    assert lesson.looks != ()
    assert lesson.step == "" or lesson.step in BY_NAME
    assert lesson.kind == "step" or sum(len(sentences(p)) for p in lesson.text) >= 2


@EVERY
def test_what_to_look_at_can_be_typed(lesson: Lesson) -> None:
    """All places of a command are filled in with the lab's own names."""
    site = example_site(talk.TALK, lesson)
    for look in lesson.looks:
        found = looked(look, site.lab, example_states(site.lab))
        assert found is not None
        command, shows = found
        assert re.findall(r"\{[a-z]+\}", command.text + shows) == []
        assert command.place in ("node01", "container01", "switch")


def test_steps_come_first_and_in_order() -> None:
    """The list is the talk's order; a step's lesson is its plan's docstring."""
    names = [lesson.name for lesson in LESSONS if lesson.kind == "step"]
    assert names == [step.name for step in STEPS]
    assert [lesson.name for lesson in LESSONS][: len(names)] == names
    said = " ".join((BY_NAME["veth"].plan.__doc__ or "").split())
    assert said.startswith(find("veth").text[0])


def test_no_word_means_two_things() -> None:
    """Names and other words are unique, in any case."""
    words = [w.lower() for lesson in LESSONS for w in (lesson.name, *lesson.aliases)]
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("FDB", "FDB"),
        ("fdb", "FDB"),
        ("neigh", "neighbour"),
        ("Neighbor", "neighbour"),
        ("neighbour entry", "neighbour"),
        ("ARP", "neighbour"),
        ("vtep", "VTEP"),
        ("flannel.1", "VTEP"),
        ("MTU", "mtu"),
        ("SUBNET.ENV", "subnet.env"),
        ("FLANNEL_SUBNET", "subnet.env"),
        ("ip_forward", "forwarding"),
        ("cbr0", "bridge"),
        ("veth  pair", "veth"),
        ("directrouting", "DirectRouting"),
        ("8472", "socket"),
    ],
)
def test_a_word_finds_its_lesson(word: str, name: str) -> None:
    """Names, other words, any case."""
    assert find(word).name == name


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("fbd", "did you mean `vxlab explain FDB`?"),
        ("neighbuor", "did you mean `vxlab explain neighbour`?"),
        ("quantum", "`vxlab explain` lists all lessons"),
        ("", "`vxlab explain` lists all lessons"),
    ],
)
def test_an_unknown_word_gets_a_close_one(word: str, hint: str) -> None:
    """A slip of the finger is told what may have been meant."""
    with pytest.raises(UsageError) as caught:
        find(word)
    assert (caught.value.message, caught.value.hint) == (f"there is no lesson about {word!r}", hint)


# --- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [step.name for step in steps_of(talk.TALK)])
def test_commands_are_the_operations(step: str) -> None:
    """What is shown is what `up` does, word for word, with the prompt apart."""
    site, states = talk.site(), up()
    typed = [f"{c.place}# {c.text}" for c in commands(step, site, states)]
    node = talk.TALK.nodes[0]
    ops = [str(op) for op in BY_NAME[step].plan(site, node, states)]
    place = "switch" if BY_NAME[step].on in ("switch", "cables") else "node01"
    assert typed == [op if op.startswith("container01# ") else f"{place}# {op}" for op in ops]


def test_without_a_lab_an_example_has_addresses() -> None:
    """The talk's lab with the overlay's first subnets."""
    site = example_site(talk.TALK)
    typed = [c.text for c in commands("address", site, example_states(talk.TALK))]
    assert typed == ["ip addr add 10.5.1.10/24 dev vethNS", "ip link set vethNS up"]


def test_a_lab_has_no_commands_of_others_steps() -> None:
    """Certificates are for real hosts, a switch for nodes of this machine."""
    states = example_states(talk.TALK)
    assert list(commands("tls", example_site(talk.TALK), states)) == []
    remote = example_site(talk.TALK, find("tls"))
    assert len(list(commands("tls", remote, states))) == 5
    assert list(commands("switch", remote, states)) == []


@pytest.mark.parametrize(
    ("word", "backend"),
    [
        ("udp", '{"Type": "udp"}'),
        ("host-gw", '{"Type": "host-gw"}'),
        ("DirectRouting", '{"Type": "vxlan", "DirectRouting": true}'),
    ],
)
def test_an_example_has_what_the_lesson_is_about(word: str, backend: str) -> None:
    """What the talk's lab does not have is shown on one that does."""
    site = example_site(talk.TALK, find(word))
    (put,) = commands(find(word).step, site, example_states(site.lab))
    assert put.text.endswith(f'"Backend": {backend}}}\'')


# --- the way of a packet ------------------------------------------------------------------------


def way(lab: Lab, states: States) -> Way:
    found = between(lab, states)
    assert found is not None
    return found


def told(lab: Lab, states: States) -> list[Line]:
    return list(tell(lab, way(lab, states)))


def test_the_way_in_one_sentence() -> None:
    """Route, neighbour entry, FDB: the lab's own addresses and MACs."""
    states = up()
    assert sentence(tell(talk.TALK, way(talk.TALK, states))) == (
        "The packet for 10.5.2.10 leaves node01 through flannel.1; the neighbour entry for"
        " 10.5.2.0 gives 5a:00:00:00:00:02; the FDB sends that MAC to 192.168.56.22 (node02)."
    )
    assert way(talk.TALK, states).whole


Damage = Callable[[States], States]


def net(**changes: Any) -> Damage:
    """Other tables on node01."""

    def damage(states: States) -> States:
        old = states["node01"]
        return {**states, "node01": replace(old, net=replace(old.net, **changes))}

    return damage


def link(name: str, **changes: Any) -> Damage:
    """An interface of node01 with other values; without values it is gone."""

    def damage(states: States) -> States:
        links = dict(states["node01"].net.links)
        old = links.pop(name)
        links |= {name: replace(old, **changes)} if changes else {}
        return net(links=links)(states)

    return damage


def no_default(states: States) -> States:
    old = states["node01"]
    inside = {"container01": replace(old.inside["container01"], routes=())}
    return {**states, "node01": replace(old, inside=inside)}


def no_arrival(states: States) -> States:
    return {**states, "node02": replace(states["node02"], net=Net(states["node02"].net.links))}


MAC2 = talk.vtep_mac(2)


@pytest.mark.parametrize(
    ("damage", "last"),
    [
        (no_default, "there is no default route: ping 10.5.2.10 says Network is unreachable"),
        (link("vethlocal"), "vethlocal is not plugged into cbr0"),
        (link("vethlocal", master=""), "vethlocal is not plugged into cbr0"),
        (
            link("cbr0", addresses=()),
            "vethlocal and cbr0 (address: none) do not lead to the gateway",
        ),
        (
            net(sysctls={"net.ipv4.ip_forward": "0"}),
            "node01 drops what is not its own: ip_forward is not 1",
        ),
        (net(routes=()), "node01 has no route to 10.5.2.10"),
        (
            net(routes=(Route("default", "192.168.56.1", "eth0"),)),
            "node01 has no route to 10.5.2.10",
        ),
        (link("flannel.1"), "flannel.1 is down, or gone"),
        (link("flannel.1", up=False), "flannel.1 is down, or gone"),
        (
            net(neighbours=()),
            "there is no neighbour entry for 10.5.2.0: nobody answers ARP on flannel.1",
        ),
        (
            net(neighbours=(Neighbour("10.5.2.0", "flannel.1", "aa:bb:cc:dd:ee:ff", "PERMANENT"),)),
            "the neighbour entry for 10.5.2.0 gives aa:bb:cc:dd:ee:ff, but node02's VTEP has"
            f" {MAC2}",
        ),
        (net(fdb=()), f"the FDB has no entry for {MAC2}: the frame is dropped"),
        (
            net(fdb=(FdbEntry(MAC2, "flannel.1", "192.168.56.99", "permanent"),)),
            "the FDB sends that MAC to 192.168.56.99, but node02 is 192.168.56.22",
        ),
        (no_arrival, "node02 has no route to 10.5.2.10 on cbr0"),
        (
            net(routes=(Route("10.5.2.0/24", "192.168.56.22", "eth0"),)),
            "its next hop is 192.168.56.22: not through flannel.1, as VXLAN would",
        ),
    ],
)
def test_a_gap_ends_the_way(damage: Damage, last: str) -> None:
    """The first table that does not lead on is named; nothing after it is made up."""
    states = damage(up())
    lines = told(talk.TALK, states)
    assert ([line.ok for line in lines].count(False), lines[-1].ok, lines[-1].words) == (
        1,
        False,
        last,
    )
    assert sentence(iter(lines)).endswith(f"{last[1:]}.")


def test_the_longest_prefix_wins() -> None:
    """As in the kernel; no route at all is none."""
    wide, narrow = Route("10.0.0.0/8", "", "a"), Route("10.5.2.0/24", "", "b")
    found = Net(routes=(Route("default", "", "c"), wide, narrow))
    assert best_route(found, "10.5.2.10") is narrow
    assert best_route(found, "10.6.0.1") is wide
    assert best_route(found, "9.9.9.9") == Route("default", "", "c")
    assert best_route(Net(), "9.9.9.9") is None


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (
            "host-gw",
            "The packet for 10.5.2.10 leaves node01 through eth0; its next hop is 192.168.56.22"
            " (node02), nothing is put in front.",
        ),
        (
            "direct",
            "The packet for 10.5.2.10 leaves node01 through eth0; its next hop is 192.168.56.22"
            " (node02), nothing is put in front.",
        ),
        (
            "udp",
            "The packet for 10.5.2.10 leaves node01 through flannel0; flanneld reads it there and"
            " sends it to node02 itself.",
        ),
    ],
)
def test_other_backends_have_another_way(backend: str, said: str) -> None:
    """No neighbour and no FDB entry where the backend makes none."""
    lab = lab_of(backend)
    assert sentence(tell(lab, way(lab, up(lab)))) == said
    assert [line for line in told(lab, up(lab)) if not line.ok] == []


def test_a_gap_is_never_whole() -> None:
    """`whole` and what is told agree, for every damage that a way can have."""
    marks = test_a_gap_ends_the_way.pytestmark  # type: ignore[attr-defined]
    for damage, _ in marks[0].args[1]:
        states = damage(up())
        # A plain route works, although the lab is to have a tunnel.
        plain = states["node01"].net.routes == (Route("10.5.2.0/24", "192.168.56.22", "eth0"),)
        assert way(talk.TALK, states).whole is plain


# --- what a lab shows ---------------------------------------------------------------------------


def shown(lab: Lab, states: States) -> Iterator[str]:
    """All that is said of a lab, as text."""
    for lesson in LESSONS:
        yield f"== {lesson.name}"
        for line in seen(lesson, lab, states):
            sign = " " if line.ok else "!"
            if line.command:
                yield f"{sign} {line.place}# {line.command}"
                yield f"      {line.shown or '-'}"
            yield f"{sign}     {line.words}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_lab_shows(backend: str) -> None:
    """Every lesson with every backend, against its case file; nothing is missing."""
    lab = lab_of(backend)
    text = "\n".join(shown(lab, up(lab)))
    assert re.findall(r"^!.*", text, re.MULTILINE) == []
    agrees(f"explain/{backend}.txt", f"{text}\n")


@pytest.mark.parametrize("backend", BACKENDS)
def test_nodes_that_are_down_are_told_as_missing(backend: str) -> None:
    """Nothing but gaps and what is known of the lab itself, and no exception."""
    lab = lab_of(backend)
    down = {name: State() for name in up(lab)}
    for lesson in LESSONS:
        lines = seen(lesson, lab, down)
        assert [line for line in lines if line.shown and line.ok] == []


def test_missing_entries_are_said_to_be_missing() -> None:
    """An FDB entry, a neighbour entry, a stranger's entry, a foreign socket."""
    states = up()

    def bad(name: str, damage: Damage) -> list[str]:
        lines = seen(find(name), talk.TALK, damage(states))
        return [line.words for line in lines if line.command and not line.ok]

    stranger = FdbEntry("aa:bb:cc:dd:ee:ff", "flannel.1", "192.168.56.9", "permanent")
    assert bad("fdb", net(fdb=(stranger,))) == [
        f"no entry for {MAC2}, node02's VTEP",
        "aa:bb:cc:dd:ee:ff is no VTEP of this lab",
    ]
    assert bad("neighbour", net(neighbours=())) == ["no entry for 10.5.2.0, node02's subnet"]
    assert bad("overlay", net(routes=())) == ["no route to 10.5.2.0/24, node02's subnet"]
    assert bad("mtu", link("cbr0", mtu=1500)) == ["the overlay, wanted 1450"]

    def thief(states: States) -> States:
        taken = replace(states["node01"], udp=(UdpSocket(8472, 'users:(("thief",pid=7))'),))
        return {**states, "node01": taken}

    assert bad("socket", thief) == ["a process has the port"]


@pytest.mark.parametrize(
    ("backend", "absent"),
    [
        ("vxlan", {"host-gw", "udp", "DirectRouting", "host", "tls"}),
        ("direct", {"host-gw", "udp", "encapsulation", "host", "tls"}),
        (
            "host-gw",
            {"VXLAN", "VTEP", "VNI", "neighbour", "FDB", "socket", "encapsulation", "udp", "host"}
            | {"DirectRouting", "tls"},
        ),
    ],
)
def test_a_lab_says_what_it_does_not_have(backend: str, absent: set[str]) -> None:
    """The backend decides; the lesson says so instead of showing nothing."""
    lab = lab_of(backend)
    without = {lesson.name for lesson in LESSONS if not exists_in(lesson, lab)}
    assert without == absent
    for lesson in LESSONS:
        if lesson.name in absent:
            (only,) = seen(lesson, lab, up(lab))
            assert (only.command, only.ok) == ("", True)
