"""One family of errors a user can cause: what is wrong, where, and how to mend it.

The command line prints them without a traceback and ends with the class's exit code (design: section 4).
Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations


class C2FError(Exception):
    """An error with a message, the place of the fault and a cure.

    message: what is wrong, with the offending values.
    place: file, line or path where it is wrong.
    cure: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, place: str | None = None, cure: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.cure = cure

    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return f"{head}\n    {self.cure}" if self.cure else head


class RunError(C2FError):
    """The command ran and failed, or an expectation was not met."""

    exit_code = 1


class UsageError(C2FError):
    """The command was used wrongly."""

    exit_code = 2


class SpecError(C2FError):
    """The spec is wrong; the message holds every fault found."""

    exit_code = 2


class MissingError(C2FError):
    """Data or weights that the command needs are not there."""

    exit_code = 3


class DataError(C2FError):
    """Data or weights are there and cannot be used."""

    exit_code = 3


class Preempted(C2FError):
    """The run was asked to stop by a signal; its state is saved and it should be queued again."""

    exit_code = 75


class GuardError(C2FError):
    """A guard stopped training (non-finite loss, collapse); queueing it again would not help."""

    exit_code = 76


class InterruptedByHand(C2FError):
    """Ctrl-C; the state is saved."""

    exit_code = 130
