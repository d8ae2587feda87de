"""The migrations of a log on PostgreSQL, `NNNN_name.sql`, in the order of their numbers.

A migration that was released is never edited: old nodes run beside new ones, and only add.
"""
