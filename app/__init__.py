"""The bot: decisions, turns and read models over the log, and the ways in.

`bootstrap` wires the parts of one bot, `bot` runs them, `node` puts several behind one door, and
`serving` is the process around it. `cli` is the command line.
"""
