"""The commands of `tipsseg`: parse the options, call the library, print."""
