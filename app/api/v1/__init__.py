"""The read API: what the log and the read models say, for auditors, operators and analysts.

`reading` is what every route shares: whose bot, which moment, how it is answered. One file for each
kind of question.
"""
