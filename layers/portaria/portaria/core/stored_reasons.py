"""Reasons that are stored in table items and on which code decides later.

A stored reason may be another text, of an older version or for people only: compare it with these members, do not convert it.
"""

from __future__ import annotations

from enum import StrEnum


class ConnectionReason(StrEnum):
    """Why a connection needs to be connected again, or was removed."""

    ANSWER_LOST = "answer_lost"
    GRANT_REVOKED = "grant_revoked"
    REFUSED_TOO_LONG = "refused_too_long"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - a reason
    UNINSTALLED = "uninstalled"
    DELETED = "deleted"


class InstallFailure(StrEnum):
    """Why an install failed, as far as code decides on it. An install's item may hold any other reason of an error."""

    BAD_CODE = "bad_code"
    CODE_USED = "code_used"
    INVALID_ACCOUNT = "invalid_account"
    OTHER_ACCOUNT = "other_account"
    PLATFORM_REFUSED = "platform_refused"
    WRONG_REDIRECT_URI = "wrong_redirect_uri"
