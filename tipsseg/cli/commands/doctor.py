"""`tipsseg doctor`."""

from __future__ import annotations

import typer

from tipsseg.cli import options as opt
from tipsseg.cli.help import Command
from tipsseg.cli.wording import as_typed
from tipsseg.runs.common.progress import print_text
from tipsseg.util.printable import counted, printable

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=Command)
def doctor(device: opt.Device = "auto", dtype: opt.Dtype = "auto") -> None:
    """Check this installation: versions, devices, numbers, cache and weights. Uses no network.

    Exit code 0: all is well; 1: a line says FAIL.
    """
    from tipsseg.runs.doctor.report import examine

    failed = 0
    for diagnostic in examine(device, dtype):
        failed += diagnostic.state == "fail"
        state = "FAIL" if diagnostic.state == "fail" else diagnostic.state
        print_text(f"{printable(f'{state:5} {diagnostic.what}: {as_typed(diagnostic.detail)}')}\n")
        if diagnostic.hint:
            print_text(f"      {printable(as_typed(diagnostic.hint))}\n")
    print_text(f"{counted(failed, 'check')} failed.\n" if failed else "All is well.\n")
    if failed:
        raise typer.Exit(1)
