"""The benchmarks. Processes that are measured get the environment in which a benchmark was started: the engines change it when
they are imported, and what they tell OpenMP is not for others."""

import os

ENVIRONMENT = dict(os.environ)
