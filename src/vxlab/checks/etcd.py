"""Is etcd healthy, and does it hold flannel's configuration as the lab wants it?"""

from __future__ import annotations

import json
from collections.abc import Iterator

from vxlab.checks.finding import Evidence, Finding, compare
from vxlab.lab import FLANNEL_PREFIX

CODE = "etcd"


def answer(evidence: Evidence) -> Iterator[Finding]:
    lab = evidence.lab
    if not evidence.etcd_version:
        said = evidence.etcd_error or "no answer"
        yield Finding(CODE, lab.etcd.node, False, said, "an answer", "vxlab logs etcd; vxlab up")
        return
    yield Finding(CODE, lab.etcd.node, True, f"etcd {evidence.etcd_version} serves {lab.etcd_url}")
    seen = evidence.keys.get(f"{FLANNEL_PREFIX}/config", "")
    wanted = lab.overlay.flannel_config()
    same = bool(seen) and _parsed(seen) == _parsed(wanted)
    yield compare(CODE, lab.etcd.node, "configuration", seen, seen if same else wanted, "vxlab up")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
