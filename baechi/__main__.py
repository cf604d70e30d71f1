"""``python -m baechi`` is the command line."""

from baechi.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
