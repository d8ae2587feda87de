"""The PostgreSQL of the tests, and the network before it, do what the tests rely on."""
