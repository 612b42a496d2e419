"""python -m purifier, the command line."""

from purifier.cli import main

if __name__ == "__main__":
    main()
