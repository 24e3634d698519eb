"""What can go wrong, as one small hierarchy.

Everything a user can mend is an `InputError`: the command line prints its message as one line and exits with 2.
A message names the thing that is wrong and says what to do about it. `GateFailed` is a result, not a fault: exit 1.
"""


class ForgeError(Exception):
    """Base of every error that the forge raises on purpose."""

    exit_code = 2


class InputError(ForgeError, ValueError):
    """The user's input is wrong; the message says which and how to mend it."""


class ConfigError(InputError):
    """A config has a wrong key or value."""


class CheckpointError(InputError):
    """A checkpoint is missing, truncated or altered."""


class DataError(InputError):
    """A corpus, a task file or a split cannot be used."""


class LeakageError(DataError):
    """Held-out text stands in the training data."""


class MergeError(InputError):
    """Parents cannot be merged (shapes, tokenizers) or a merge gave NaN."""


class TrainingError(InputError):
    """Training cannot go on: a loss or gradient is not finite."""


class StorageError(InputError):
    """The disk is full, the folder is read-only, or the name is taken."""


class MissingDependency(InputError):
    """An optional package or a device is needed; the message has the line that installs it."""


class GateFailed(ForgeError):
    """A phase did not meet its gates and its policy is `stop`."""

    exit_code = 1
