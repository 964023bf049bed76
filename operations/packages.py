"""Packages that only operators install: requirements-operator.txt."""

from importlib.util import find_spec

from pydantic import AfterValidator


def needs(package: str) -> AfterValidator:
    """Refuse a setting whose package is missing."""

    def check(value: object) -> object:
        if value is not None:
            require(package)
        return value

    return AfterValidator(check)


def require(*packages: str) -> None:
    """Raises: ValueError, when one of them is not installed."""
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        names = " and ".join(missing)
        raise ValueError(
            f"needs {names}: pip install -r requirements-operator.txt "
            "(an image: build it again, with OPERATOR=1)"
        )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what it is a part of is missing, too
        return False
