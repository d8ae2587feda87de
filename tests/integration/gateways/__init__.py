"""Gateways over real HTTP, against the simulators and against servers that misbehave."""
