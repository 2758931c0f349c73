"""Folders are local: locks, atomic renames and descriptors are those of a file system."""

import os
import re

from alexnet_jax.config import invalid

# `Path` makes one slash of two. An absolute path begins with one, so that none looks like this.
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def check_local(path: str | os.PathLike[str], name: str) -> None:
    """Raise a ValueError if what the argument `name` names is an address such as gs://bucket/a."""
    if address := ADDRESS.match(os.fspath(path)):
        rule = f"must be a local path, and {address[0]}/ begins an address"
        remedy = "use a local folder, or mount the store and name where (as an absolute path)"
        raise invalid(name, path, rule, remedy)
