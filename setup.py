"""Installs Koi: both programs, everything under koi/share with its executable bits, manual pages and completions."""

import os
import re

from setuptools import find_packages, setup

HERE = os.path.dirname(os.path.abspath(__file__))


def version():
    """The version in koi/__init__.py, read and not imported: what Koi needs may not be installed yet."""
    with open(os.path.join(HERE, "koi", "__init__.py"), encoding="utf-8") as file:
        return re.search(r'^__version__ = "([^"]+)"', file.read(), re.MULTILINE).group(1)


def shared_files():
    """Every file under koi/share, relative to the package."""
    package = os.path.join(HERE, "koi")
    return [
        os.path.relpath(os.path.join(folder, name), package)
        for folder, _, names in os.walk(os.path.join(package, "share"))
        for name in names
        if "__pycache__" not in folder
    ]


setup(
    name="koi",
    version=version(),
    description="A high-availability manager: keeps one instance of some software active on a small cluster",
    license="ISC",
    author="the Koi authors",
    python_requires=">=3.10",
    packages=find_packages(include=["koi", "koi.*"]),
    package_data={"koi": ["py.typed", *shared_files()]},
    zip_safe=False,
    install_requires=["setproctitle", "pyyaml", "docopt", "cryptography"],
    extras_require={"test": ["pytest", "pytest-timeout", "hypothesis"]},
    data_files=[
        ("share/man/man1", ["docs/man/koi.1"]),
        ("share/man/man5", ["docs/man/koi.conf.5"]),
        ("share/man/man8", ["docs/man/koinode.8"]),
        ("share/bash-completion/completions", ["docs/completion/koi"]),
        ("share/zsh/site-functions", ["docs/completion/_koi"]),
    ],
    entry_points={"console_scripts": ["koi=koi.cli:main", "koinode=koi.node:main"]},
)
