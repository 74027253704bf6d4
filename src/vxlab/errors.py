"""Every error a user can meet, with its exit code.

    VxlabError                       exit  what it means
    ├── UsageError                    64   the command line does not make sense for this lab
    ├── LabFileError                  65   the lab file is wrong (all problems at once)
    ├── UnreachableError              68   a host does not answer, or its connection was lost
    ├── MissingError                  69   a machine lacks a program or a feature, or is taken
    ├── OperationError                70   a change to a node failed
    │   └── DaemonError               70   etcd or flanneld died or never became ready
    ├── JournalError                  74   the lab's directory is damaged, foreign or not writable
    ├── BusyError                     75   another command works on this lab
    └── RefusedError                  77   a host's key is not known, or it refused login or sudo

``vxlab verify`` adds its verdicts: 0 all good, 1 a check failed, 2 something could not be measured.
A run stopped with Ctrl-C exits with 130. The numbers above 63 follow ``sysexits.h``.
"""

from __future__ import annotations


class VxlabError(Exception):
    """What happened, where, and what to do about it.

    Args:
        message: what happened, in one sentence.
        where: the node, step or file it happened in, such as ``node01 · flannel``.
        detail: what the kernel or the program said, verbatim.
        hint: what the user can do now.
    """

    exit_code = 70

    def __init__(self, message: str, *, where: str = "", detail: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.detail = detail
        self.hint = hint

    def as_json(self) -> dict[str, str | int]:
        """The error as the stable object that ``--json`` prints."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "where": self.where,
            "detail": self.detail,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(VxlabError):
    """The command line names something that this lab does not have."""

    exit_code = 64


class UnreachableError(VxlabError):
    """A host cannot be reached over SSH, or the connection was lost in the middle."""

    exit_code = 68


class MissingError(VxlabError):
    """A machine lacks a program or a kernel feature, or has what a lab must not take over."""

    exit_code = 69


class OperationError(VxlabError):
    """A change to a node failed; carries node, operation and the kernel's words."""

    exit_code = 70


class DaemonError(OperationError):
    """A daemon died or did not become ready; carries the last lines of its log."""


class JournalError(VxlabError):
    """The lab's directory is damaged, belongs to something else or cannot be written."""

    exit_code = 74


class BusyError(VxlabError):
    """Another command works on this lab at the moment."""

    exit_code = 75


class RefusedError(VxlabError):
    """A host's key is unknown or has changed, or the host refused the login or sudo."""

    exit_code = 77
