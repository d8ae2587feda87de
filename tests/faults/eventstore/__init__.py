"""Real processes at a real log, ended with SIGKILL."""
