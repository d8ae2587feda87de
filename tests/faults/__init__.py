"""What survives when processes are killed, disks fill up and peers misbehave."""
