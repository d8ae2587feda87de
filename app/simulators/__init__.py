"""The outside, simulated: an OpenAI-compatible and a Whapi-compatible server over real HTTP."""

from app.simulators.openai import OpenAISimulator
from app.simulators.serving import listen, serving
from app.simulators.whapi import WhapiSimulator

__all__ = ["OpenAISimulator", "WhapiSimulator", "listen", "serving"]
