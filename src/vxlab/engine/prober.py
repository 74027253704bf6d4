"""What `verify` wants to know from inside the containers, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from vxlab.lab import Container
from vxlab.probe import Echo, EdgeResult

#: What `Prober.ping` calls the destination that is a place's own gateway.
GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Place:
    """A container that has an address."""

    container: Container
    address: str
    gateway: str
    runs: bool  # when its node was looked at

    @property
    def name(self) -> str:
        return self.container.full_name


@dataclass(frozen=True, slots=True)
class Journey:
    """Packets from one container to another, on another node."""

    src: Place
    dst: Place
    answered: bool  # the ping before was


Echoes = dict[tuple[str, str], Echo]


class Prober(Protocol):
    """Sends packets from containers."""

    def ping(self, places: Sequence[Place]) -> Echoes:
        """Every place to every other one and to its gateway, all at once.

        Returns:
            By the names of both; the gateway's is `GATEWAY`.
        """

    def edges(self, journeys: Sequence[Journey]) -> list[EdgeResult]:
        """Whether the overlay's MTU is the edge; one journey per source at most."""


def not_running(name: str) -> Echo:
    """What becomes of a ping from a container that is not there."""
    return Echo(False, error=f"{name} does not run")
