from django.apps import AppConfig


class JobTestsConfig(AppConfig):
    """Makes the tests' handlers known to the worker processes of the tests."""

    name = "tests.jobs"
    label = "job_tests"

    def ready(self) -> None:
        from tests.jobs import work  # noqa: F401 - Registers the kinds.
