"""`python -m portaria`: the administrators' command line. Functions never import it; its needs are in requirements/cli.in."""

from portaria.cli.commands import main

if __name__ == "__main__":
    main()
