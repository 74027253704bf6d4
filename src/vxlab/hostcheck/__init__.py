"""Can these real hosts carry the lab? Asked before the first change, all problems at once.

One program per host looks at it and changes nothing, the parser and the judgements are pure. With
the hosts' answers the lab is located: interfaces, prefix lengths and the underlay's MTU. A second
program per host, all at the same time, sends packets from host to host as the lab will.
"""

from __future__ import annotations

from vxlab.hostcheck.facts import Facts
from vxlab.hostcheck.finding import HostFinding
from vxlab.hostcheck.judging import judge
from vxlab.hostcheck.looking import program
from vxlab.hostcheck.reach import Reach, judge_reach, parse_reach, reach_program
from vxlab.hostcheck.reading import FactsError, parse
from vxlab.hostcheck.underlay import located

__all__ = [
    "Facts",
    "FactsError",
    "HostFinding",
    "Reach",
    "judge",
    "judge_reach",
    "located",
    "parse",
    "parse_reach",
    "program",
    "reach_program",
]
