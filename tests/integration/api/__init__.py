"""The read API over real HTTP, before a bot that was filled by its own parts."""
