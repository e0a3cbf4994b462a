"""A module that takes longer to import than anybody waits in a test."""

import time

time.sleep(60)
