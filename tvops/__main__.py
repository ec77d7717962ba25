"""Lets ``python -m tvops`` do what the ``tvops`` command does."""

from tvops.cli import main

if __name__ == "__main__":
    main()
