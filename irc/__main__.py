"""`python -m irc`: the command `irc`."""

from irc.cli.entry import main

if __name__ == "__main__":
    main()
