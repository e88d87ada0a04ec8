"""`python -m whatstuck` is `whatstuck`."""

from whatstuck.cli import main

main()
