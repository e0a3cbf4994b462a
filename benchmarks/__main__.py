"""`python -m benchmarks [NAME ...]`: runs the benchmarks; each prints one JSON object a measurement."""

import json
import sys
from importlib import import_module

NAMES = ["drawing", "rating", "training", "training_losses", "training_at_size"]


def main(names: list[str]) -> None:
    for name in names:
        if name not in NAMES:
            sys.exit(f"There is no benchmark {name}; there are {', '.join(NAMES)}.")
        for measurement in import_module(f"benchmarks.{name}").measure():
            print(json.dumps({"benchmark": name, **measurement}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or NAMES)
