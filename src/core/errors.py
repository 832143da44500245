"""Errors that are meant for the person at the keyboard."""

from __future__ import annotations


class UserError(Exception):
    """Bad input, a bad environment or a contradiction that the user can mend.

    The message says what is wrong, where, and how to mend it; the command line prints it
    alone, without a traceback, and exits with ``exit_code``.
    """

    exit_code = 2
