"""What runs outside every sandbox: this package, its Python, and what that imports.

Whoever can write there decides what our own process runs next, so no workspace may touch it.
"""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path

_IMPORTED = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")


def installation() -> list[Path]:
    """The folders and files that our own process is made of.

    The clone that holds the package is not among them: a workspace that contains it contains the package, and its
    other folders (examples, runs) are as good a workspace as any.
    """
    paths = sysconfig.get_paths()
    found = [Path(__file__).parents[1], *(Path(paths[name]) for name in _IMPORTED), Path(sys.executable)]
    if site.ENABLE_USER_SITE:
        found.append(Path(site.getusersitepackages()))
    # An environment serves nothing else; a prefix such as /usr/local also holds folders of other people.
    if sys.prefix != sys.base_prefix:
        found.append(Path(sys.prefix))
    return found


def touched(folder: Path) -> Path | None:
    """What of the installation a program that writes in `folder` could change; None if nothing."""
    folder = folder.resolve()
    for path in installation():
        # A link on the way can be replaced as well as what it leads to.
        for name in (path, path.parent.resolve() / path.name, path.resolve()):
            if name.is_relative_to(folder) or folder.is_relative_to(name):
                return name
    return None
