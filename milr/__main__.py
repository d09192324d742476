"`python -m milr` is the `milr` command. (Like `__init__.py`, written by hand: nbdev exports neither.)"
import sys

def main()->int: # exit code
    "The command, or one line that says what it lacks."
    try:
        from milr.lab.cli import main
    except ModuleNotFoundError as e:
        print(f"milr: {e}", file=sys.stderr)
        return 1
    return main()

if __name__ == "__main__":
    sys.exit(main())
