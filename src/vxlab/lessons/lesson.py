"""What a lesson is: a text, where it comes from, what to look at, and the ping that shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Look:
    """Something to type, and what it shows.

    `command` has places to fill in: {device} is flannel's interface, {nic} the underlay's, {veth}
    the node's end of the cable, {port} the VTEPs' UDP port, {target} a container on another node.
    """

    where: str  # "node", "container", "etcd" (etcd's node) or "switch"
    command: str
    shows: str
    backends: tuple[str, ...] = ()  # flannel backends that have it; empty: all


@dataclass(frozen=True, slots=True)
class Lesson:
    """A step of the talk or a thing in its network, explained."""

    name: str
    title: str
    text: tuple[str, ...]  # paragraphs
    sources: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()
    #: The ping of the talk that belongs to it: what it says before, or without it.
    ping: str = ""
    aliases: tuple[str, ...] = ()
    step: str = ""  # the step whose commands make it
    kind: str = "thing"  # or "step"
    backends: tuple[str, ...] = ()  # flannel backends that have it; empty: all


@dataclass(frozen=True, slots=True)
class Beside:
    """What a step's docstring does not say: sources, what to look at, more words for it."""

    looks: tuple[Look, ...] = ()
    more: str = ""
    sources: tuple[str, ...] = ()
    ping: str = ""
    aliases: tuple[str, ...] = ()
