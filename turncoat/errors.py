"""The one exception a user is meant to read: a stage prints its message and exits with status 2."""

import difflib
from collections.abc import Iterable

MOST = 12  # names that are told: who reads more?


class TurncoatError(Exception):
    """Something the user can mend; the message names the field or file and the remedy, on one line where it can."""


class Diverged(TurncoatError):
    """A training whose loss or gradient is no longer a finite number: a trial of a grid may come to that."""


def there_are(name: str, known: Iterable[str]) -> str:
    """What to say after a name that nothing has: `did you mean trades? There are standard, pgd, ... and 130 more`.

    The near ones first; of the others as many as one reads.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3)
    rest = [other for other in names if other not in near][: max(MOST - len(near), 0)]
    more = len(names) - len(near) - len(rest)
    told = ", ".join([*near, *rest]) + f" and {more} more" * (more > 0) or "none"
    return f"did you mean {' or '.join(near)}? There are {told}" if near else f"there are {told}"
