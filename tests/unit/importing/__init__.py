"""Reading what exists before Hilo."""
