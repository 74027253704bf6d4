"""``python -m vxlab``."""

from vxlab.cli import main

main()
