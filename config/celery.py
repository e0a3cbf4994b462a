"""The Celery application; its settings are the CELERY_ names of config.settings."""

import os

from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from config.embedded.death import die_with_parent

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("atelier")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_process_init.connect
def _end_with_worker(**kwargs: Any) -> None:
    """A pool's process must not go on alone when its worker is killed: its lease is given to another one."""
    die_with_parent()
