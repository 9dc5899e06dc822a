"""What a person asks for, looked at before a model is: the folder, and the tables that the request names."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from openk2.core import UserError
from openk2.core.messages import is_unicode
from openk2.sandbox import touched
from openk2.worlds.csv_file import check_csv


def check_workspace(workspace: Path) -> Path:
    """The absolute workspace. Raises UserError if it is not a folder that can be read, or one of OpenK2's own."""
    advice = "name a folder with --workspace"
    try:
        found = workspace.resolve(strict=True)
        is_folder = found.is_dir()
    except FileNotFoundError as e:
        raise UserError(f"the workspace {workspace} does not exist: {advice}") from e
    except NotADirectoryError as e:
        raise UserError(f"the workspace {workspace} lies below a file: {advice}") from e
    except (OSError, RuntimeError, ValueError) as e:
        reason = getattr(e, "strerror", None) or e
        raise UserError(f"the workspace {workspace} cannot be reached ({reason}): {advice}") from e
    if not is_folder:
        raise UserError(f"the workspace {workspace} is not a folder: {advice}")
    if not os.access(found, os.R_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise UserError(f"the workspace {workspace} cannot be read by you: change its permissions, or {advice}")
    if found == Path(found.anchor):
        raise UserError(f"the workspace {workspace} is the whole system: {advice}")
    if not is_unicode(str(found)):
        raise UserError(f"the workspace {str(found)!r} has a name that is not UTF-8: rename it, or {advice}")
    if own := touched(found):
        raise UserError(f"in the workspace {found} OpenK2 itself could be changed ({own}): {advice}")
    return found


_DEEPER = re.compile(r"""[^\s"'`,;:?!()\[\]{}<>]+/[^\s"'`,;:?!()\[\]{}<>]+\.csv\b""", re.IGNORECASE)


def csvs_that_are_no_tables(request: str, workspace: Path) -> list[str]:
    """A sentence for every CSV in the workspace that the request means and no reader takes for a table.

    It means those that it names, with the folder if they lie deeper; if it speaks of a CSV without a name, the only
    one that is there.
    """
    there = sorted(
        path for path in workspace.glob("*.[cC][sS][vV]") if path.is_file() and path.resolve().is_relative_to(workspace)
    )
    meant, rest = [], request
    # The longest first, so that `data.csv` is not found in `old data.csv`.
    for path in sorted(there, key=lambda path: -len(path.name)):
        without = _named(path.name).sub(" ", rest)
        if without != rest:
            meant.append(path)
        rest = without
    for name in dict.fromkeys(_DEEPER.findall(request)):
        with suppress(OSError, ValueError, RuntimeError):
            path = (workspace / name).resolve()
            if path.is_relative_to(workspace) and path.is_file() and path not in meant:
                meant.append(path)
    if not meant and re.search(r"\bcsv\b", request, re.IGNORECASE) and len(there) == 1:
        meant = there
    sentences = []
    for path in meant:
        try:
            check_csv(path)
        except UserError as e:
            sentences.append(str(e))
    return sentences


def _named(name: str) -> re.Pattern[str]:
    """A file's name in a request, whole: `data.csv` is not in `old-data.csv` or `data.csv.gz`."""
    return re.compile(rf"(?<![\w./-])(\./)?{re.escape(name)}(?!\.?[\w-])", re.IGNORECASE)
