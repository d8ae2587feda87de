"""What holds for every test: no way out to the real OpenAI or WhatsApp, no deadline for hypothesis.

The environment is cleaned when this file is imported, before any fixture runs, so that the
processes tests start inherit the clean one.
"""

from __future__ import annotations

import os

from hypothesis import settings

REAL_WORLD = ("HILO_", "OPENAI_", "WHAPI_")

for name in [name for name in os.environ if name.startswith(REAL_WORLD)]:
    del os.environ[name]

# A shared CI core makes any single example slow; pytest's own time-out guards against hangs.
settings.register_profile("hilo", deadline=None, print_blob=True)
settings.load_profile("hilo")
