"""``python -m pbauth``: the ``pbauth`` command."""

from pbauth.cli import main

if __name__ == "__main__":
    main(prog_name="python -m pbauth")
