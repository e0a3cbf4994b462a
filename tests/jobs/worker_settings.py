"""The settings of the worker processes that the tests start: those of the product, and the tests' handlers."""

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.jobs.apps.JobTestsConfig"]
