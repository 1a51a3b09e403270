"""The command line. `entry` is what the console script calls; `main` holds the verbs."""
