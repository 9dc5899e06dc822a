"""What the `openk2` command starts with: nothing heavy is imported before Ctrl-C has a sentence."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from openk2.cli.main import main as run

        run()
    except KeyboardInterrupt:
        # Before the command had begun, or after it had ended; in between it says more.
        sys.stderr.write("openk2: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
