"""`python -m portaria_cli`: the administrators' command line. What it needs is in requirements/cli.in."""

from portaria_cli.commands import main

if __name__ == "__main__":
    main()
