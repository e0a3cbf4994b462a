"""The rating API."""

from ninja import Router

router = Router(tags=["rating"])
