"""How long a server asks to wait, by the header Retry-After (RFC 9110, 10.2.3)."""

import math
from datetime import datetime
from email.utils import parsedate_to_datetime


def retry_after(value: str | None, *, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After, which is a number or an HTTP date; None if it is neither.

    >>> from datetime import UTC
    >>> retry_after("Fri, 31 Dec 1999 23:59:59 GMT", now=datetime(1999, 12, 31, 23, 59, 29, tzinfo=UTC))
    30.0
    """
    if value is None:
        return None
    try:
        wait = float(value)
    except ValueError:
        try:
            wait = (parsedate_to_datetime(value) - now).total_seconds()
        except (TypeError, ValueError):
            return None
    return max(0.0, wait) if math.isfinite(wait) else None
