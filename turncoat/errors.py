"""The one exception a user is meant to read: a stage prints its message and exits with status 2."""


class TurncoatError(Exception):
    """Something the user can mend; the message names the field or file and the remedy, on one line where it can."""


class Diverged(TurncoatError):
    """A training whose loss or gradient is no longer a finite number: a trial of a grid may come to that."""
