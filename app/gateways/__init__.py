"""The outside world: implementations of the ports of `app.conversation.ports`.

Imported by `app.outside` only.
"""

from app.conversation.ports import Chat
from app.gateways.openai import OpenAIProvider, OpenAISettings
from app.gateways.whapi import ChannelHealth, WhapiMessenger, WhapiSettings

__all__ = [
    "ChannelHealth",
    "Chat",
    "OpenAIProvider",
    "OpenAISettings",
    "WhapiMessenger",
    "WhapiSettings",
]
