"`python -m milr` is the `milr` command. (Like `__init__.py`, written by hand: nbdev exports neither.)"
import sys
from milr.cli import main

if __name__ == "__main__": sys.exit(main())
