from django.apps import AppConfig


class AtelierConfig(AppConfig):
    """The installation itself: its commands, and the Celery application that tasks are sent through."""

    name = "config"
    label = "atelier"
    verbose_name = "Atelier"

    def ready(self) -> None:
        from config import celery  # noqa: F401 - Makes the Celery application the current one.
