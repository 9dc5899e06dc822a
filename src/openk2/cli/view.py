"""`openk2 view`: look at a trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openk2.cli.common import given_path


def view(
    path: Annotated[str, typer.Argument(help="A file in ATIF, or a session of the agent.", metavar="PATH")],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write one page that needs nothing else.", parser=given_path),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Its events, one JSON object a line.")] = False,
) -> None:
    """Show a trajectory, or write it as a page.

    It may be a session of the agent, a record of demo or eval --save, or a file of an export to atif.

    \b
    Example:
    ./k2 view 20260102-1030 --html session.html
    """
    from openk2.agent.page import events, read_trajectory, write_page
    from openk2.agent.setup import speaker_of
    from openk2.agent.view import ConsoleView, print_json
    from openk2.core.progress import new_console

    trajectory = read_trajectory(path)
    if html is not None:
        write_page(trajectory, html, force=force)
        print(html)
        return
    show = print_json if as_json else ConsoleView(new_console(), speaker=speaker_of(trajectory.policy))
    for event in events(trajectory):
        show(event)
