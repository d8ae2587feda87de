"""What Hilo promises, stated so that a machine can hold it to that."""
