"""One message, from the phone to the answer: a real bot, over real HTTP, in a world with faults."""
