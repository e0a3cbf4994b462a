"""How the web process is served: one process of eight threads, which is small and enough for a team on one machine."""

from typing import Any

from config.embedded.death import die_with_parent

worker_class = "gthread"
workers = 1
threads = 8
timeout = 60
graceful_timeout = 3
keepalive = 5
accesslog = None
errorlog = "-"
# Its control socket would lie in the home folder of whoever starts it, which may not exist.
control_socket_disable = True


def post_fork(server: Any, worker: Any) -> None:
    die_with_parent()
