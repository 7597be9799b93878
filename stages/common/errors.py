"""The errors that a user can cause and mend.

LimaError
├── ParamsError   params.yaml or a profile: unknown key, wrong type, value out of range
├── InputError    a file, archive, model folder or row that is missing, truncated or of the wrong form
└── JudgeError    an annotator or endpoint that cannot answer

A message reads `<file or id>: <rule>, got <value>; <remedy>`. `stages.common.main.run_stage` prints it as one line
and exits with 1.
"""


class LimaError(Exception):
    """A fault in what the user gave, told in one sentence."""


class ParamsError(LimaError):
    """A value in params.yaml, or in a profile, breaks its rule."""


class InputError(LimaError):
    """A file, archive, model folder or row breaks its rule."""


class JudgeError(LimaError):
    """An annotator, or the endpoint behind it, cannot answer."""
