"""What stands for a gateway's ids in the log: HMACs, since ids contain phone numbers."""

from __future__ import annotations

from collections.abc import Callable

from eventstore.types import IdempotencyKey

Fingerprint = Callable[..., IdempotencyKey]


def message_ref(
    fingerprint: Fingerprint, gateway: str, channel: str, message_id: str
) -> IdempotencyKey:
    """Return what stands for a message's id, received or sent."""
    return fingerprint("message", gateway, channel, message_id)


def echo_key(
    fingerprint: Fingerprint, gateway: str, channel: str, message_id: str
) -> IdempotencyKey:
    """Return the key of the echo of a send."""
    return fingerprint("echo", gateway, channel, message_id)
