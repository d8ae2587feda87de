"""Read models, without a process of their own."""
