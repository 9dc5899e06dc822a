"""`python -m openk2` is the `openk2` command."""

from openk2.cli.main import main

if __name__ == "__main__":
    main()
