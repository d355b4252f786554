"""Entry point of the command, also of `python -m tipsseg`."""

from tipsseg.cli.signals import end_at_once_on_signals


def main() -> None:
    """Run the command. While it loads, a signal ends it at once."""
    end_at_once_on_signals()
    from tipsseg.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
