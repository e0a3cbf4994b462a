"""The local Postgres and Valkey, the supervisor that runs everything on one machine, and what it says when it cannot."""

from config.embedded.problem import Problem
from config.embedded.services import running_services, urls

__all__ = ["Problem", "running_services", "urls"]
