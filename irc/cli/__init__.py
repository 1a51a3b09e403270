"""The command line. `entry` is the console script's entry point; `main` defines the commands."""
