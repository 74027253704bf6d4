"""The commands of a lab as a person would type them, from the very operations that the steps plan.

Nothing is run and nothing is read here. What only a node will know, such as the subnet that flannel
is going to give it, appears as the command that finds it.
"""

from __future__ import annotations

from vxlab.rehearsal.command import Command
from vxlab.rehearsal.export import scripts
from vxlab.rehearsal.rehearse import Rehearsed, known, rehearse

__all__ = ["Command", "Rehearsed", "known", "rehearse", "scripts"]
