"""What the tests of this room share: one tiny random model a process, since building it takes seconds."""

from pathlib import Path

import pytest

from tests.accounts.factories import make_person


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A diffusers folder of a random model that draws 32 px RGBA."""
    from demo.tiny import build_tiny

    return build_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def sign_in(client):
    """Signs a new person of these roles in, and returns them."""

    def sign_in(*roles: str):
        person = make_person(*roles)
        client.force_login(person)
        return person

    return sign_in
