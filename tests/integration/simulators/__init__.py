"""The simulators, over real HTTP, through the clients that the program itself uses."""
