"""Any exception as one line for the user and an exit code."""

from __future__ import annotations

import errno

from softctm.errors import InputError, OutputError, SoftCTMError
from softctm.extras import EXTRA_OF, broken, missing

_NO_WAY = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_NO_DISK = (errno.EIO, errno.ESTALE)


def as_expected(error: Exception) -> SoftCTMError:
    """The error itself if it is a `SoftCTMError`, else one that says what kind of surprise it was."""
    if isinstance(error, SoftCTMError):
        return error
    text = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError) and not (error.name or "softctm").startswith("softctm"):
        return missing(str(error.name))
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] in EXTRA_OF:
        return broken(str(error.name), text)
    if isinstance(error, MemoryError):
        return SoftCTMError("out of memory; free some, or do less at once" + (f" ({text})" if text else ""))
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        where = error.filename or "a file"
        return OutputError(
            f"{where} cannot be written ({error.strerror}); make room, or choose another place"
        )
    if isinstance(error, OSError) and error.errno in _NO_WAY and error.filename:
        return InputError(
            f"{error.filename}: cannot be used ({error.strerror}); check the path and its permissions"
        )
    if isinstance(error, OSError) and error.errno in _NO_DISK:
        where = error.filename or "a file"
        return InputError(f"{where}: cannot be read or written ({error.strerror}); check the disk it lies on")
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return SoftCTMError(f"unexpected {what}; this is a bug, please report it (--debug shows where)")
