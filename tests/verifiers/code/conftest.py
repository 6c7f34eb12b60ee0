import pytest

from tulu.errors import RecipeError
from tulu.verifiers.code import sandbox


@pytest.fixture(autouse=True)
def _sandboxed() -> None:
    try:
        sandbox.require()
    except RecipeError as fault:
        pytest.skip(str(fault))
