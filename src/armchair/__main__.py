"""`python -m armchair`."""

from armchair.cli.main import entry

entry()
