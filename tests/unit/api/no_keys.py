"""A door that asks for no key, because there is none."""

from __future__ import annotations

from app.aggregates.access import AccessKey


class NoKeys:
    """An installation without any key."""

    def any(self) -> bool:
        return False

    def is_good(self, key_id: str) -> bool:
        return False

    def find(self, token: str) -> None:
        return None

    def may_be_new(self, token: str) -> bool:
        return False

    def look_again(self) -> None:
        raise AssertionError

    def used(self, key: AccessKey) -> None:
        raise AssertionError
