"""Errors meant for people: one line that says what was wrong, where, and what to do."""


class HallujaxError(Exception):
    """Base of every error whose message is for the user; the command line prints it without a traceback."""

    exit_code = 1

    def __str__(self) -> str:
        """One line, whatever is in the names and texts that it quotes: control characters stand as escapes."""
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in super().__str__())


class UsageError(HallujaxError):
    """A wrong argument, configuration key, or combination of both."""

    exit_code = 2


class DataError(HallujaxError):
    """A dataset, clip or record that is missing, damaged, or not what its index says."""

    exit_code = 3


class CheckpointError(HallujaxError):
    """A checkpoint that is missing, damaged, or of another architecture."""

    exit_code = 5


class DamagedRecordError(DataError):
    """A record that cannot be read or decoded, or is not of the clip and frame that the index says."""


class NotFiniteError(HallujaxError):
    """A loss, gradient or prediction that has become infinite or not a number."""

    exit_code = 4


class ProcessLost(HallujaxError):
    """Of several processes one is missing, has died or stands still. Starting all of them again may well do."""

    exit_code = 42
