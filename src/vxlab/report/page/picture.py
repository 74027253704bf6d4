"""The lab's picture: the interfaces that a trace concerns, as stations of lines through nodes.

Containers are above, the underlay below, so that a packet goes down through one node and up through
the other. Only the layout and the drawing are here; the page's script moves the packet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from ipaddress import IPv4Interface

from vxlab.lab import ANYWHERE, UNKNOWN, Lab, Node
from vxlab.steps import bridge, overlay
from vxlab.steps.veth import INSIDE
from vxlab.trace import hops
from vxlab.trace.hops import Hop
from vxlab.trace.journey import Trace
from vxlab.trace.why import Place

Point = tuple[int, int]

# Everything below is in the picture's own units, of which a phone's width has about 360.
_LANE = 170  # a column: one container and what is below it
_GAP = 12  # between boxes
_EDGE = 2
_RAIL = 26  # from a column's left side to its line
_LABEL = 50  # from a column's left side to the words beside a station
_HEAD = 26  # a container's title
_TITLE = 40  # a node's title, and its subnet
_ROW = 62  # from station to station
_UNDER = 24  # from cbr0's station to the line from column to column, below the words
_WIRE = 58  # the underlay's box
_LONGEST = 18  # characters that fit beside a station


@dataclass(slots=True)
class Column:
    """A container, if any, and the interfaces of its node below it, from top to bottom."""

    node: str
    container: str
    x: int
    rows: list[tuple[int, Hop]] = field(default_factory=list)  # (row, hop)


@dataclass(frozen=True, slots=True)
class Box:
    """Something that has interfaces: a container, a node, the underlay, the world outside."""

    kind: str
    title: str
    note: str
    x: int
    y: int
    width: int
    height: int


class Picture:
    """Where everything is that a trace concerns.

    Args:
        trace: what was found.
        lab: the lab.
    """

    def __init__(self, trace: Trace, lab: Lab) -> None:
        self.trace = trace
        self.lab = lab
        self.outside = trace.at is None
        self.columns: list[Column] = []
        self.places: dict[Hop, Point] = {}
        self.boxes: list[Box] = []
        self.bars: dict[str, tuple[Point, Point]] = {}  # cbr0 across a node's columns
        concerned = list(dict.fromkeys(_concerned(trace, lab)))
        self._lay_columns(concerned)
        # A node below its containers has room for one row at least.
        rows = [row for column in self.columns for row, _ in column.rows]
        lowest = max([*rows, 1 if self._top else 0])
        self.wire_y = 0
        bottom = self._y(lowest) + _ROW // 2
        if any(self._is_nic(hop) for hop in self.places) or self.outside:
            self.wire_y = bottom + _GAP + _WIRE // 2
        self.height = bottom + (_GAP + _WIRE if self.wire_y else 0) + _EDGE
        right = self.columns[-1].x + _LANE if self.columns else _LANE
        if self.outside:
            right += _GAP + _LANE
        self.width = right + _EDGE
        self._lay_boxes(bottom)

    # --- layout ---------------------------------------------------------------------------------

    def _lay_columns(self, concerned: list[Hop]) -> None:
        x = _EDGE
        for name in _nodes(self.trace, concerned):
            mine = [hop for hop in concerned if hop.node == name]
            for column in self._columns_of(name, mine):
                column.x = x
                self.columns.append(column)
                x += _LANE
            x += _GAP
        used = sorted({row for column in self.columns for row, _ in column.rows})
        for column in self.columns:
            # A row that no column has any station in is left out.
            column.rows = [(used.index(row), hop) for row, hop in column.rows]
        self._top = any(column.container for column in self.columns)
        for column in self.columns:
            for row, hop in column.rows:
                self.places[hop] = column.x + _RAIL, self._y(row)

    def _columns_of(self, name: str, mine: list[Hop]) -> list[Column]:
        node = next((each for each in self.lab.nodes if each.name == name), None)
        inside = list(dict.fromkeys(hop.container for hop in mine if hop.container))
        cables = {c.veth: c.name for c in node.containers} if node else {}
        for hop in mine:
            if not hop.container and cables.get(hop.interface, "") not in (*inside, ""):
                inside.append(cables[hop.interface])
        columns = [Column(name, container, 0) for container in inside] or [Column(name, "", 0)]
        for hop in mine:
            owner = hop.container or cables.get(hop.interface, "")
            column = next((c for c in columns if c.container == owner), columns[0])
            column.rows.append((self._row(node, hop, cables), hop))
        for column in columns:
            column.rows.sort(key=lambda each: each[0])
        return columns

    def _row(self, node: Node | None, hop: Hop, cables: dict[str, str]) -> int:
        """How far down an interface is; each kind has its height."""
        if hop.container:
            return 0
        if hop.interface in cables:
            return 1
        if hop.interface == bridge.NAME:
            return 2
        if node is not None and hop.interface == self.lab.nic(node):
            return 5
        return 3 if hop.interface == overlay.device(self.lab) else 4

    def _y(self, row: int) -> int:
        """The middle of a row; the containers' row is a box of its own."""
        titles = _HEAD + (_GAP + _TITLE if row else 0) if self._top else _TITLE
        return _EDGE + titles + row * _ROW + _ROW // 2

    def _is_nic(self, hop: Hop) -> bool:
        node = next((each for each in self.lab.nodes if each.name == hop.node), None)
        return node is not None and not hop.container and hop.interface == self.lab.nic(node)

    def _lay_boxes(self, bottom: int) -> None:
        node_top = self._y(1) - _ROW // 2 - _TITLE if self._top else _EDGE
        for column in self.columns:
            if column.container:
                height = _HEAD + _ROW
                box = Box("container", column.container, "", column.x + 2, _EDGE, _LANE - 4, height)
                self.boxes.append(box)
        for name in dict.fromkeys(column.node for column in self.columns):
            mine = [column for column in self.columns if column.node == name]
            width = mine[-1].x + _LANE - mine[0].x
            note = subnet(self.trace, self.lab, name)
            box = Box("node", name, note, mine[0].x, node_top, width, bottom - node_top)
            self.boxes.append(box)
            own = Hop(name, "", bridge.NAME)
            if len(mine) > 1 and own in self.places:
                y = self.places[own][1] + _UNDER
                self.bars[name] = (mine[0].x + _RAIL, y), (mine[-1].x + _RAIL, y)
        if self.wire_y:
            y, width = self.wire_y - _WIRE // 2, self.width - 2 * _EDGE
            title = "underlay" if self.lab.remote else "switch, the underlay"
            self.boxes.append(Box("wire", title, _wire(self.lab), _EDGE, y, width, _WIRE))
        if self.outside:
            x = self.width - _EDGE - _LANE
            y = node_top + (bottom - node_top) // 2 - _ROW // 2
            words = Box("outside", "outside the lab", self.trace.dst, x, y, _LANE, _HEAD + 28)
            self.boxes.append(words)

    # --- ways -----------------------------------------------------------------------------------

    def between(self, before: Hop | None, after: Hop) -> list[Point]:
        """The points of the line from one hop to another, without the first."""
        if after not in self.places:
            return []
        end = self.places[after]
        if before is None or before not in self.places:
            return [end]
        start = self.places[before]
        if start[0] == end[0] or not self._turn(before, after):
            return [end]
        y = self._turn(before, after)
        return [(start[0], y), (end[0], y), end]

    def _turn(self, before: Hop, after: Hop) -> int:
        """How high the line between two columns is: cbr0's height, or the underlay's."""
        if before.node == after.node and before.node in self.bars:
            return self.bars[before.node][0][1]
        return self.wire_y

    def out(self, last: Hop) -> list[Point]:
        """From the last hop to whatever is outside the lab."""
        box = next((box for box in self.boxes if box.kind == "outside"), None)
        if box is None or last not in self.places:
            return []
        x, y = self.places[last]
        target = box.x + _RAIL
        return [(x, y), (x, self.wire_y), (target, self.wire_y), (target, box.y + box.height)]

    # --- drawing --------------------------------------------------------------------------------

    def svg(self) -> str:
        """The picture as an SVG element; the script adds the packet and lights the path up."""
        return "\n".join(self._drawn())

    def _drawn(self) -> Iterator[str]:
        yield (
            f'<svg id="picture" width="{self.width}" height="{self.height}" '
            f'viewBox="0 0 {self.width} {self.height}" role="group" '
            f'aria-label="The lab: nodes, containers and the interfaces that the packet passes">'
        )
        for box in self.boxes:
            yield from _box(box)
        for points in self._rails():
            yield f'<polyline class="rail" points="{_points(points)}"/>'
        yield '<polyline id="path-ahead" points=""/><polyline id="path-done" points=""/>'
        for number, (hop, place) in enumerate(self.places.items()):
            yield from self._station(number, hop, place)
        yield '<g id="train" aria-hidden="true"></g>'
        yield "</svg>"

    def _rails(self) -> Iterator[list[Point]]:
        """Every cable and every way through a kernel, whether a packet went there or not."""
        for column in self.columns:
            line = [self.places[hop] for _, hop in column.rows]
            if self.wire_y and column.rows and self._is_nic(column.rows[-1][1]):
                line.append((column.x + _RAIL, self.wire_y))
            if column.node in self.bars:
                y = self.bars[column.node][0][1]
                line = sorted({*line, (column.x + _RAIL, y)}, key=lambda point: point[1])
            if len(line) > 1:
                yield line
        for start, end in self.bars.values():
            yield [start, end]
        if self.wire_y:
            ends = [hop for hop in self.places if self._is_nic(hop)]
            xs = [self.places[hop][0] for hop in ends]
            if self.outside and ends:
                yield self.out(ends[0])[1:]
            if len(xs) > 1:
                yield [(min(xs), self.wire_y), (max(xs), self.wire_y)]

    def _station(self, number: int, hop: Hop, place: Point) -> Iterator[str]:
        x, y = place
        lines = [line for line in self._labels(hop) if line]
        top = y + 4 - 7 * (len(lines))
        full = ", ".join([str(hop), hops.described(self.lab, hop), *lines])
        yield f'<g class="station" data-station="{number}" data-hop="{escape(str(hop))}">'
        yield f"<title>{escape(full)}</title>"
        width, height = _LANE - 6, _ROW - 6
        left, upper = x - _RAIL + 3, y - height // 2
        yield (
            f'<rect class="touch" x="{left}" y="{upper}" width="{width}" height="{height}" rx="8"/>'
        )
        yield f'<circle cx="{x}" cy="{y}" r="6"/>'
        label = x - _RAIL + _LABEL
        yield f'<text class="name" x="{label}" y="{top}">{_short(hop.interface, _LONGEST)}</text>'
        for row, line in enumerate(lines, 1):
            at = top + 14 * row
            yield f'<text class="small" x="{label}" y="{at}">{_short(line, _LONGEST)}</text>'
        yield "</g>"

    def station(self, hop: Hop) -> int | None:
        """The number of a hop's station."""
        return next((i for i, each in enumerate(self.places) if each == hop), None)

    def _labels(self, hop: Hop) -> tuple[str, str]:
        """What is known of an interface: its address, and its MTU by the lab's plan."""
        size = self.lab.underlay.mtu if self._is_nic(hop) else self.lab.overlay_mtu
        return self._address(hop), f"MTU {size}" if size else ""

    def _address(self, hop: Hop) -> str:
        trace, lab = self.trace, self.lab
        if hop.container:
            ends = {str(trace.source): trace.src, str(trace.at): trace.dst}
            return ends.get(hop.place, "") if hop.interface == INSIDE else ""
        node = next((each for each in lab.nodes if each.name == hop.node), None)
        if node is not None and self._is_nic(hop):
            return "" if node.address == UNKNOWN else str(node.address)
        if hop.interface == bridge.NAME:
            known = subnet(trace, lab, hop.node)
            return str(IPv4Interface(known).ip + 1) if known else ""
        if hop.interface == overlay.device(lab):
            return f"VNI {lab.overlay.vni}" if lab.overlay.backend_type == "vxlan" else "tun device"
        return ""


def subnet(trace: Trace, lab: Lab, node: str) -> str:
    """The node's part of the overlay, by a container's address there; empty if none is known."""
    for place, address in ((trace.source, trace.src), (trace.at, trace.dst)):
        if isinstance(place, Place) and place.node == node and place.container:
            return str(IPv4Interface(f"{address}/{lab.overlay.subnet_length}").network)
    return ""


def _concerned(trace: Trace, lab: Lab) -> Iterator[Hop]:
    """The hops of the trace: where it was to go by, where it was seen, where it was missed."""
    yield from _planned(trace, lab)
    for journey in trace.journeys:
        for leg in journey.legs:
            yield from (stop.hop for stop in leg.stops)
            yield from leg.missed


def _planned(trace: Trace, lab: Lab) -> Iterator[Hop]:
    containers = {(c.node, c.name): c for c in lab.containers}
    source = containers.get((trace.source.node, trace.source.container))
    at = trace.at
    if source is None:
        return
    target = containers.get((at.node, at.container)) if at is not None else None
    if target is not None:
        yield from hops.path(lab, source, target)
        if source.node == target.node:
            yield Hop(source.node, "", bridge.NAME)
        return
    yield from (hops.inside(source), Hop(source.node, "", source.veth))
    yield Hop(source.node, "", bridge.NAME)
    if at is None or at.node != source.node:
        yield hops.underlay(lab, lab.node(source.node))
    if at is not None and at.node != source.node:
        yield hops.underlay(lab, lab.node(at.node))


def _nodes(trace: Trace, concerned: Iterable[Hop]) -> list[str]:
    """The nodes from left to right: the source's, the target's, any others."""
    names = [trace.source.node, *([trace.at.node] if trace.at else [])]
    present = {hop.node for hop in concerned}
    every = dict.fromkeys([*names, *(hop.node for hop in concerned)])
    return [name for name in every if name in present]


def _wire(lab: Lab) -> str:
    network = "" if lab.underlay.network == ANYWHERE else str(lab.underlay.network)
    size = f"MTU {lab.underlay.mtu}" if lab.underlay.mtu else ""
    return ", ".join(part for part in (network, size) if part)


def _points(points: Iterable[Point]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _short(words: str, most: int) -> str:
    shown = words if len(words) <= most else f"{words[: most - 1]}…"
    return escape(shown)


def _box(box: Box) -> Iterator[str]:
    yield (
        f'<rect class="box {box.kind}" x="{box.x}" y="{box.y}" width="{box.width}" '
        f'height="{box.height}" rx="10"/>'
    )
    if box.kind == "wire":
        # Below the line that packets take, which is the box's middle.
        x, y = box.x + box.width // 2, box.y + box.height - 8
        words = f"{box.title}: {box.note}" if box.note else box.title
        yield f'<text class="small centred" x="{x}" y="{y}">{escape(words)}</text>'
        return
    # Beside the line, as all words are.
    x, y = box.x + _LABEL - (2 if box.kind == "container" else 0), box.y + 18
    yield f'<text class="title" x="{x}" y="{y}">{_short(box.title, _LONGEST)}</text>'
    if box.note:
        yield f'<text class="small" x="{x}" y="{y + 15}">{_short(box.note, _LONGEST)}</text>'
