"""A module that only a program started cold imports, as one does that lacks something where it is forked."""

import os
import sys

if __name__ != "__main__":
    raise ImportError("This cannot be imported.")

sys.exit(int(os.environ.get("STATUS", "3")))
