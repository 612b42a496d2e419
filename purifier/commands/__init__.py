"""The commands of the `purifier` command line, one a file; each has a click command called `command`."""
