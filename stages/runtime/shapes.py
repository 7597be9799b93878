"""The shape of a model folder's blocks, as transformers reads its config."""

from pathlib import Path

from stages.common.errors import InputError
from stages.common.files import first_line
from stages.core.training_cost import Shape, shape_of


def read_shape(folder: Path) -> Shape:
    """Read a shape; what the config leaves out is what transformers takes.

    Raises:
        InputError: the model has no blocks of the LLaMA kind.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return shape_of(config.get_text_config().to_dict())
    except (KeyError, OSError, ValueError) as error:
        raise InputError(
            f"{folder}: its config has no shape that a cost can be told of ({first_line(error)}); take "
            "a base of another family"
        ) from None
