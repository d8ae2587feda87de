"""The server is killed with -9, at every named point and at random, and started again."""
