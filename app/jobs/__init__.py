"""The schedule, and one file per job."""
