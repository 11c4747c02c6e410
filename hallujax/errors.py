"""Errors meant for people: one line that says what was wrong, where, and what to do."""


class HallujaxError(Exception):
    """Base of every error whose message is for the user; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(HallujaxError):
    """A wrong argument, configuration key, or combination of both."""

    exit_code = 2


class DataError(HallujaxError):
    """A dataset, clip or record that is missing, damaged, or not what its index says."""

    exit_code = 3


class CheckpointError(HallujaxError):
    """A checkpoint that is missing, damaged, or of another architecture."""

    exit_code = 5


class NotFiniteError(HallujaxError):
    """A loss or gradient that has become infinite or not a number."""


class ProcessLost(HallujaxError):
    """Of several processes one is missing, has died or stands still. Starting all of them again may well do."""

    exit_code = 42
