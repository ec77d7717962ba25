"""Every error that a user can cause, and the exit code that the command line gives it.

    TvopsError                 1   the command failed
    ├── UsageError             2   an argument, a setting or a file is wrong
    │   └── SettingsError          names the offending key
    ├── RefusedError           1   what was asked for is not safe, and why
    ├── HeldError              1   somebody else holds the data directory or a port
    ├── ServerError            1   a Valkey/Redis server is unreachable or unfit for its role
    │   └── UnfitServerError       unfit until somebody changes its configuration
    ├── LedgerError            1   the ledger cannot be read or written
    │   └── FencedError            another engine has appended to this ledger
    ├── JournalError           1   the journal of tuning cannot be read or written
    └── StoppedError           1   a signal ended a run of tuning, which was undone (7: not all of it)

The message is one plain line that names the thing, the value and the fix.
"""


class TvopsError(Exception):
    """A failure that is told in one line and without a traceback."""

    exit_code = 1


class UsageError(TvopsError):
    """An argument, a setting or a file that the user gave is wrong."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting has an unknown name or a value out of range."""


class RefusedError(TvopsError):
    """What was asked for would lose data or is otherwise not safe."""


class HeldError(TvopsError):
    """Somebody else holds a resource that this command needs for itself."""


class ServerError(TvopsError):
    """A Valkey/Redis server is unreachable, or unfit for its role."""


class UnfitServerError(ServerError):
    """A Valkey/Redis server is unfit for its role until somebody changes its configuration."""


class LedgerError(TvopsError):
    """The ledger cannot be read or written."""


class FencedError(LedgerError):
    """Another engine has appended to this ledger: this one has to stop."""


class JournalError(TvopsError):
    """The journal of tuning cannot be read or written."""


class StoppedError(TvopsError):
    """A signal ended a run of tuning, which was undone."""
