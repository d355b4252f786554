"""`python -m tipsseg` is the `tipsseg` command."""

from tipsseg.cli.main import main

if __name__ == "__main__":
    main()
