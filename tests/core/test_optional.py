"""Packages that an extra brings."""

import json

import pytest

from modicum.core import optional


def test_what_is_there_is_imported():
    assert optional.package("json", "federated") is json


@pytest.mark.parametrize(("name", "shown"), [(None, "no_such.part"), ("no-such", "no-such")])
def test_what_is_not_there_is_named_with_its_extra(name, shown):
    with pytest.raises(ImportError, match=rf"^this needs the package {shown}: pip install 'modicum\[flower\]'$"):
        optional.package("no_such.part", "flower", name)
