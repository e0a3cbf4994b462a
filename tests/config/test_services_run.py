"""The services that every test relies on."""

import os

import redis
from django.conf import settings
from django.db import connection


def test_database_is_postgres_18_with_vector(db):
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
        assert cursor.fetchone() == (18,)
        cursor.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")
        assert cursor.fetchone() == (1,)


def test_broker_answers_and_keeps_every_message():
    client = redis.Redis.from_url(settings.CELERY_BROKER_URL)
    assert client.ping()
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    client.close()


def test_data_folder_is_not_the_persons_own():
    assert "atelier-tests-" in str(settings.DATA_DIR)
    assert str(settings.DATA_DIR) == os.environ["DATA_DIR"]
