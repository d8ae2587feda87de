"""The world of one bot: the clients of OpenAI and of Whapi, made from its settings."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from app.conversation.ports import Messenger, ModelProvider
from app.gateways.openai import OpenAIProvider, OpenAISettings
from app.gateways.whapi import WhapiMessenger, WhapiSettings
from app.settings import Settings


class Outside(msgspec.Struct, frozen=True):
    """The world of one bot: who answers, and who carries the messages."""

    provider: ModelProvider
    messenger: Messenger
    close: Callable[[], object]


def open_outside(settings: Settings, *, openai_url: str, whapi_url: str) -> Outside:
    """Return clients of the real world, or of the simulators that stand in for it."""
    provider = OpenAIProvider(
        OpenAISettings(
            model=settings.model,
            instructions=settings.instructions,
            base_url=openai_url,
            mode=settings.openai_mode,
            run_seconds=settings.run_seconds,
        ),
        api_key=settings.openai_api_key.get_secret_value() or "simulated",
    )
    messenger = WhapiMessenger(
        WhapiSettings(
            base_url=whapi_url, channel=settings.channel, send_seconds=settings.send_seconds
        ),
        token=settings.whapi_token.get_secret_value() or "simulated",
    )

    async def close() -> None:
        await provider.close()
        await messenger.close()

    return Outside(provider=provider, messenger=messenger, close=close)
