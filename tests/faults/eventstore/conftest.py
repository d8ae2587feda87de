"""The stores of the conformance suite, killed."""

from __future__ import annotations

from tests.conformance.conftest import one_database

__all__ = ["one_database"]
