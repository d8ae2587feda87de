"""The outside world: implementations of the ports of `app.conversation.ports`.

Imported by `bootstrap` only.
"""

from app.gateways.openai import OpenAIProvider, OpenAISettings
from app.gateways.whapi import ChannelHealth, Chat, WhapiMessenger, WhapiSettings

__all__ = [
    "ChannelHealth",
    "Chat",
    "OpenAIProvider",
    "OpenAISettings",
    "WhapiMessenger",
    "WhapiSettings",
]
