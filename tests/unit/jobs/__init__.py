"""Tests of the schedule and of the fleet's jobs."""
