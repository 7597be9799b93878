"""in_context: let an untuned base answer by showing it how, after URIAL (Lin et al. 2023, arXiv:2312.01552).

The base goes on with a text: a few conversations in a fixed form, ours in stages/templates/in_context.txt, and then the
prompt in the same form with its reply open. The reply ends where the form closes it. No weight is changed, so what
fine-tuning adds shows beside it.
"""

from collections.abc import Mapping, Sequence

from stages.core.filling import fill

STOP = "</reply>"


def in_context_text(messages: Sequence[Mapping[str, str]], *, template: str) -> str:
    r"""The text that the base goes on with.

    Args:
        messages: a dialogue that ends with the user's turn.
        template: names {{dialogue}}, at its end.

    Raises:
        InputError: the template names something else.

    >>> in_context_text([{"role": "user", "content": "Hi"}], template="Talk:\n{{dialogue}}\n")
    'Talk:\n<message>\nHi\n</message>\n<reply>\n'
    """
    turns = []
    for message in messages:
        tag = "message" if message["role"] == "user" else "reply"
        turns.append(f"<{tag}>\n{message['content']}\n</{tag}>\n")
    dialogue = "".join(turns) + "<reply>"
    return fill(template, {"dialogue": dialogue}, name="stages/templates/in_context.txt").rstrip() + "\n"
