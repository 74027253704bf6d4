"""Golden cases: what the code says now is compared with a file.

``VXLAB_REGEN=1 pytest`` writes the files anew; the diff is the review.
"""

from __future__ import annotations

import os
from pathlib import Path

CASES = Path(__file__).parent / "cases"
REGENERATE = os.environ.get("VXLAB_REGEN") == "1"


def agrees(case: str, actual: str) -> None:
    """Assert that the text is what the case file holds, or write it there."""
    path = CASES / case
    if REGENERATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(actual, encoding="utf-8")
    assert actual == path.read_text(encoding="utf-8")
