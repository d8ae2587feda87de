"""Promises of single parts: no process, no network, no disk but a temporary one."""
