"""The engine that trains: `python -m training.engine RUN_DIR`. Importing it imports no torch; `trainer` does."""

# The trainer is offline too: the drawing engine sets the libraries' environment before anything imports them.
import generation.engine  # noqa: F401
