"""Read models: an engine that follows the log, and one file per read model."""
