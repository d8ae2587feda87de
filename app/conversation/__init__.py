"""The turn: what is due, run it, deliver it, recover it. `docs/turn.md` has its invariants."""
