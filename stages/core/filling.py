"""filling: texts with {{names}}, filled in one pass, so that a value which itself holds {{answer_b}} stays as it is."""

import re
from collections.abc import Mapping

from stages.common.errors import InputError

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")


def fill(template: str, values: Mapping[str, str], *, name: str) -> str:
    """Fill a template in one pass.

    Raises:
        InputError: the template names a value that there is not, or leaves one out.
    """
    named = set(_PLACEHOLDER.findall(template))
    if named != set(values):
        wanted = " ".join(f"{{{{{key}}}}}" for key in values)
        raise InputError(f"{name}: must name each of {wanted} and no other, got {sorted(named)}; correct the template")
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)
