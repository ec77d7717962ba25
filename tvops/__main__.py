"""The `tvops` command, which ``python -m tvops`` is, too."""

from __future__ import annotations

import contextlib
import sys

from tvops.ctrl_c import end_at_once, spare_imports


def main() -> None:
    """Run the command line of this process, and end it."""
    try:
        spare_imports()
        from tvops import cli

        code = cli.main()
        end_at_once()
    except KeyboardInterrupt:  # before or after what the command line looks after
        end_at_once()
        with contextlib.suppress(OSError, ValueError):  # there is nobody to tell it to
            sys.stderr.write("tvops: interrupted\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
