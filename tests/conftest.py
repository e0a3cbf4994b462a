"""What every test with pages needs."""

import pytest


@pytest.fixture(autouse=True)
def _static_files_from_their_sources(settings):
    """Pages link to the files under static/ as they are: nothing has to be collected before a test."""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.WHITENOISE_AUTOREFRESH = True
    settings.WHITENOISE_USE_FINDERS = True
