"""How long a server asks to wait."""

from datetime import UTC, datetime

import pytest

from stages.core.retry_after import retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None), ("", None), ("soon", None), ("nan", None), ("inf", None), ("0", 0.0), ("-5", 0.0), ("2.5", 2.5),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0), ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("Thursday, 01-Jan-26 12:01:00 GMT", 60.0), ("Thu, 01 Jan 2026 12:00:30", None),
    ],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(value, expected):
    assert retry_after(value, now=NOW) == expected
