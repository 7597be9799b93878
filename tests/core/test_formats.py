from pathlib import PurePath
from typing import get_args

import pytest
from pydantic import ValidationError

from stages.core.dumps import DUMPS
from stages.core.formats import FILES, Format, Source, is_raw_file
from stages.core.world import make_world


def test_every_format_has_files_and_a_miniature():
    assert set(FILES) == set(DUMPS) == set(get_args(Format))


@pytest.mark.parametrize("format_", get_args(Format))
def test_the_miniature_writes_only_files_that_its_format_reads(format_):
    names = DUMPS[format_](make_world(seed=0, n_people=300))
    assert names
    assert all(is_raw_file(PurePath(name), format_) for name in names)


def test_other_files_are_not_read():
    assert not is_raw_file(PurePath("a/Posts.xml.gz"), "stack_exchange")
    assert not is_raw_file(PurePath("posts.csv"), "stack_exchange")


def test_a_source_has_a_known_format():
    with pytest.raises(ValidationError, match="format"):
        Source(format="kaggle", origin="miniature")
