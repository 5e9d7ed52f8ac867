"""`python -m dirprune` is the command `dirprune`."""

from dirprune.cli import main

main()
