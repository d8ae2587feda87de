"""What every store must do, whichever database is under it."""
