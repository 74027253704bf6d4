"""The talk as a walk through a lab that is being built: stage by stage, with its failures.

`stages` holds the talk as data, `looking` types its commands in nodes and containers, `wire` sends
full-size packets and captures them, `walking` leads through all of it.
"""

from __future__ import annotations

from vxlab.engine.walk.looking import Seen
from vxlab.engine.walk.stages import STAGES, Cast, Look, Stage, cast_of
from vxlab.engine.walk.walking import Differs, Done, Opened, Step, refuse_existing, walk
from vxlab.engine.walk.wire import Sent

__all__ = [
    "STAGES",
    "Cast",
    "Differs",
    "Done",
    "Look",
    "Opened",
    "Seen",
    "Sent",
    "Stage",
    "Step",
    "cast_of",
    "refuse_existing",
    "walk",
]
