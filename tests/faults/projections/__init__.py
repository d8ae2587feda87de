"""The process that keeps the read models, killed, starved and robbed of its files."""
