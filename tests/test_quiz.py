"""The quiz's questions: different, answerable, and true of the states they were drawn from."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

import pytest

import talk
from test_lessons import up
from vxlab import labfile
from vxlab.lab import Lab
from vxlab.quiz import ASKS, QUESTIONS, Question, normal, questions
from vxlab.quiz.question import FEWEST, MOST, choice, free
from vxlab.quiz.scene import Scene
from vxlab.state import Neighbour, Net, State

SEEDS = range(120)

LABS = {
    "two": "",
    "four": "nodes: {node01: {containers: 2}, node02: , node03: , node04: {containers: [web, db]}}",
    "one": "nodes: {node01: }",
    "host-gw": "overlay: {backend: {Type: host-gw}}",
    "direct": "overlay: {backend: {Type: vxlan, DirectRouting: true}}",
    "udp": "overlay: {backend: {Type: udp}}",
    "vni": "overlay: {backend: {Type: vxlan, VNI: 42, Port: 4789}}",
    "jumbo": "underlay: {mtu: 9000}",
}

EVERY = pytest.mark.parametrize("name", LABS)


def lab_of(name: str) -> Lab:
    return labfile.loads(f"name: {name}\n{LABS[name]}", f"{name}.yaml")


@cache
def quiz(name: str, seed: int) -> list[Question]:
    lab = lab_of(name)
    return questions(lab, up(lab), Random(seed))  # noqa: S311


@EVERY
def test_ten_different_questions(name: str) -> None:
    """For every lab and seed; of ten kinds as far as the lab has so many."""
    for seed in SEEDS:
        asked = quiz(name, seed)
        assert (len(asked), len({q.text for q in asked})) == (QUESTIONS, QUESTIONS)
        assert len({q.kind for q in asked}) == QUESTIONS


@EVERY
def test_right_answers_are_accepted_and_wrong_ones_are_not(name: str) -> None:
    """The words, the letter; every other letter, and nonsense, is wrong."""
    for seed in SEEDS:
        for q in quiz(name, seed):
            assert q.accepts(q.answer)
            assert q.accepts(f"  {q.answer.upper()} ")
            for said in ("", "?", "nonsense", "-1", "99999", "192.0.2.1"):
                assert not q.accepts(said), q
            right = [letter for letter in "abcd" if q.accepts(letter)]
            assert len(right) == (1 if q.choices else 0)
            assert [q.accepts(c) for c in q.choices].count(True) == len(right)


@EVERY
def test_no_two_choices_are_equal(name: str) -> None:
    """Three or four of them, and the right one is among them."""
    for seed in SEEDS:
        for q in quiz(name, seed):
            if q.choices:
                different = {normal(c) for c in q.choices}
                assert len(different) == len(q.choices)
                assert FEWEST <= len(q.choices) <= MOST
                assert q.answer in q.choices


@EVERY
def test_a_seed_always_asks_the_same(name: str) -> None:
    """And another one something else."""
    lab = lab_of(name)
    assert quiz(name, 7) == questions(lab, up(lab), Random(7))  # noqa: S311
    assert len({tuple(q.text for q in quiz(name, seed)) for seed in range(20)}) > 10


def test_the_right_answer_has_no_favourite_place() -> None:
    """Who always says "b" gets about a fourth right."""
    places = [q.choices.index(q.answer) for s in SEEDS for q in quiz("two", s) if q.choices]
    shares = [places.count(i) / len(places) for i in range(4)]
    assert all(0.15 < share < 0.4 for share in shares), shares


# --- truth --------------------------------------------------------------------------------------


@cache
def every(name: str) -> dict[str, set[tuple[str, str]]]:
    """All questions that a lab's seeds bring: kind -> {(text, answer)}."""
    lab = lab_of(name)
    scene = Scene.of(lab, up(lab))
    found: dict[str, set[tuple[str, str]]] = {}
    for seed in SEEDS:
        rng = Random(seed)  # noqa: S311
        for ask in ASKS:
            if q := ask(scene, rng):
                found.setdefault(q.kind, set()).add((q.text, q.answer))
    return found


@EVERY
def test_a_text_has_one_answer(name: str) -> None:
    """The same words never have two right answers."""
    for pairs in every(name).values():
        assert len({text for text, _ in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("two", set()),
        ("four", set()),
        ("vni", set()),
        (
            "host-gw",
            {"neighbour_mac", "fdb_address", "fdb_count", "frame_mac", "vtep_mac", "vni", "port"}
            | {"outer_destination", "who_wrote", "socket_owner", "too_large"},
        ),
        (
            "direct",
            {"neighbour_mac", "fdb_address", "fdb_count", "frame_mac"}
            | {"outer_destination", "who_wrote", "too_large"},
        ),
        (
            "udp",
            {"neighbour_mac", "fdb_address", "fdb_count", "frame_mac", "vtep_mac", "vni"}
            | {"outer_destination", "who_wrote", "next_hop", "ttl"},
        ),
    ],
)
def test_a_lab_is_asked_what_it_has(name: str, absent: set[str]) -> None:
    """No question about a VTEP without one."""
    kinds = {ask.__name__ for ask in ASKS}
    assert kinds - set(every(name)) == absent


def answers(name: str, kind: str) -> set[str]:
    return {answer for _, answer in every(name)[kind]}


def test_the_answers_are_the_states() -> None:
    """Against numbers reckoned by hand."""
    assert answers("two", "neighbour_mac") == {talk.vtep_mac(1), talk.vtep_mac(2)}
    assert answers("two", "fdb_address") == {"192.168.56.21", "192.168.56.22"}
    assert answers("four", "fdb_count") == {"3"}
    assert answers("one", "fdb_count") == {"0"}
    assert answers("two", "next_hop") == {"10.5.1.0", "10.5.2.0"}
    assert answers("host-gw", "next_hop") == {"192.168.56.21", "192.168.56.22"}
    assert answers("two", "out_interface") == {"flannel.1"}
    assert answers("vni", "out_interface") == {"flannel.42"}
    assert answers("udp", "out_interface") == {"flannel0"}
    assert answers("host-gw", "out_interface") == {"eth0"}
    assert answers("two", "largest_ping") == {"1422"}
    assert answers("host-gw", "largest_ping") == {"1472"}
    assert answers("udp", "largest_ping") == {"1444"}
    assert answers("jumbo", "largest_ping") == {"8922"}
    assert answers("two", "too_large") == {"1550"}
    assert answers("udp", "too_large") == {"1528"}
    assert answers("vni", "port") == {"4789"}
    assert answers("udp", "port") == {"8285"}
    assert answers("udp", "socket_owner") == {"flanneld"}
    assert answers("two", "socket_owner") == {"no process: the kernel itself"}
    assert answers("two", "subnet") == {"10.5.1.0/24", "10.5.2.0/24"}
    assert answers("two", "ttl") == {"62"}
    wire = {(t.split("`-s ")[1].split("`")[0], a) for t, a in every("two")["wire_bytes"]}
    assert wire == {(str(n), str(n + 78)) for n in (56, 100, 200, 500, 1000, 1200, 1400)}
    plain = {(t.split("`-s ")[1].split("`")[0], a) for t, a in every("host-gw")["wire_bytes"]}
    assert ("1000", "1028") in plain


def test_the_missing_line_fits_its_symptom() -> None:
    """Each of the four tables, told apart by what the packet still has."""
    lines = {}
    for text, answer in every("two")["missing_line"]:
        if "node01/container01" in text or " node01 " in text:
            symptom = text.split(": ", 1)[1].split("knows")[-1].split("says")[-1]
            lines[symptom.replace(" Which one?", "").strip()] = answer
    assert lines == {
        "Network is unreachable.": "node01/container01, ip route: default via 10.5.1.1 dev vethNS",
        "no interface to send it out of.": (
            "node01, ip route: 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink"
        ),
        "no MAC for the next hop.": (
            "node01, ip neigh: 10.5.2.0 lladdr 5a:00:00:00:00:02 PERMANENT"
        ),
        "no node to send it to.": (
            "node01, bridge fdb: 5a:00:00:00:00:02 dst 192.168.56.22 self permanent"
        ),
    }


# --- labs that are not whole --------------------------------------------------------------------


def test_a_gap_is_not_asked_about() -> None:
    """Without node01's neighbour entries no question leads out of node01."""
    lab, states = lab_of("two"), up()
    net = replace(states["node01"].net, neighbours=())
    states["node01"] = replace(states["node01"], net=net)
    for seed in SEEDS:
        for q in questions(lab, states, Random(seed)):  # noqa: S311
            assert "node01's flannel.1" not in q.text or q.kind == "fdb_count"
            assert not q.text.startswith("node01/container01 pings")


def test_a_wrong_entry_is_not_asked_about() -> None:
    """An entry with a foreign MAC is there, but nothing true can be said about its way."""
    lab, states = lab_of("two"), up()
    foreign = (Neighbour("10.5.2.0", "flannel.1", "aa:bb:cc:dd:ee:ff", "PERMANENT"),)
    net = replace(states["node01"].net, neighbours=foreign)
    states["node01"] = replace(states["node01"], net=net)
    for seed in SEEDS:
        assert all("aa:bb" not in str(q) for q in questions(lab, states, Random(seed)))  # noqa: S311


@EVERY
def test_a_lab_that_is_down_has_no_questions(name: str) -> None:
    """Empty states: nothing to ask about, and no exception."""
    lab = lab_of(name)
    down = {node.name: State() for node in lab.nodes}
    assert questions(lab, down, Random(1)) == []  # noqa: S311


def test_a_learner_s_other_lab_is_asked_as_it_is() -> None:
    """An MTU that drifted is the right answer; why it should be so is not asked."""
    lab, states = lab_of("one"), up(lab_of("one"))
    inside = states["node01"].inside["container01"]
    link = replace(inside.links["vethNS"], mtu=1500)
    changed = {"container01": Net({**inside.links, "vethNS": link}, inside.routes)}
    states["node01"] = replace(states["node01"], inside=changed)
    asked = [q for s in SEEDS for q in questions(lab, states, Random(s))]  # noqa: S311
    assert {q.answer for q in asked if q.kind == "mtu"} == {"1500"}
    assert [q for q in asked if q.kind == "mtu_why"] == []


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "same"),
    [
        (" EE:C2:0A:0B:0C:0D ", "ee:c2:0a:0b:0c:0d"),
        ("ee-c2-a-b-c-d", "ee:c2:0a:0b:0c:0d"),
        ("1450 bytes", "1450"),
        ("1450B", "1450"),
        ("Node01.", "node01"),
        ("Network  is\tunreachable", "network is unreachable"),
    ],
)
def test_what_does_not_matter_in_an_answer(said: str, same: str) -> None:
    """Case, blanks, units, how a MAC is written."""
    assert normal(said) == same


def test_an_address_with_or_without_its_prefix() -> None:
    """The right prefix length may be said or left out; a wrong one is wrong."""
    (q,) = (q for q in quiz("one", 5) if q.kind == "subnet")
    asked = [q.accepts(said) for said in ("10.5.1.0/24", "10.5.1.0", "10.5.1.0/16", "10.5.1.1")]
    assert asked == [True, True, False, False]


def test_a_letter_is_a_choice_only_where_there_are_choices() -> None:
    """`b`, `B)` and the words; a free answer `b` is just wrong."""
    asked = choice(Random(1), "k", "t?", "right", ["one", "two", "three"], "why")  # noqa: S311
    assert asked is not None
    letter = "abcd"[asked.choices.index("right")]
    good = [asked.accepts(said) for said in (letter, f" {letter.upper()}) ", "RIGHT")]
    assert good == [True, True, True]
    understood = [asked.understood(said) for said in ("e", "", "one", "four", letter)]
    assert understood == [False, False, True, False, True]
    assert not free("k", "t?", 8472, "why").accepts("a")
    assert choice(Random(1), "k", "t?", "right", ["RIGHT", "one", ""], "why") is None  # noqa: S311
