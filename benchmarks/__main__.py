"""`python -m benchmarks [NAME ...]`: runs the benchmarks; each prints one JSON object a measurement.

`python -m benchmarks rating [OPTION ...]` hands the options of the one that takes some to it; `--help` lists them.
"""

import json
import sys
from importlib import import_module

NAMES = ["drawing", "rating", "rating_screen", "training", "training_losses", "training_at_size"]
WITH_OPTIONS = "rating"


def main(arguments: list[str]) -> None:
    """Runs those that are named, or all. A wrong name is told of before the first runs."""
    options = next((n for n, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    names = arguments[:options] or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        sys.exit(f"There is no benchmark {unknown[0]}; there are {', '.join(NAMES)}.")
    if options == len(arguments):
        for name in names:
            for measurement in import_module(f"benchmarks.{name}").measure():
                print(json.dumps({"benchmark": name, **measurement}), flush=True)
    elif names == [WITH_OPTIONS]:
        import_module(f"benchmarks.{WITH_OPTIONS}").main(arguments[options:])
    else:
        sys.exit(
            f"Only the benchmark {WITH_OPTIONS} takes options, and its name comes first: python -m benchmarks {WITH_OPTIONS} --help."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
