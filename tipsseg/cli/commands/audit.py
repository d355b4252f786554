"""The `tipsseg audit` command: find likely errors in existing labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

from tipsseg.cli import options as opt
from tipsseg.cli import values
from tipsseg.cli.parameters import Only, command
from tipsseg.cli.wording import open_progress
from tipsseg.errors import UsageError
from tipsseg.options.fields import FILES, WHAT, option
from tipsseg.util.text import pluralize

EPILOG = """\b
Examples:
  tipsseg audit seen/ --labels coco/annotations.json
  tipsseg audit seen/ --labels masks/ --vocab classes.txt -n 50
  tipsseg audit seen/ --labels labelme/ --jsonl | jq -r .image | uniq
  tipsseg audit seen/ --labels coco.json --coco findings.json

\b
First label the images with the same classes, and with their confidences:
  tipsseg label photos/ -c "tree,car" -f png,npz -o seen/

\b
Prints the regions that the model labelled differently, the most doubtful
first: another class, nothing, or a thing without a label. Classes are compared
by name; pass the names of the labels with --classes or --vocab if the labels
are index masks without a list of classes, or to add synonyms. Labels are read
in any format that tipsseg correct reads.
Exit code: 0 success, 1 an error or a failed image, 2 wrong usage.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    # fmt: off
    labels: Path = option(MISSING, metavar="DIR|FILE", group=WHAT, help="The labels to audit: a folder, zip or file.")
    limit: int | None = option(None, metavar="N", short="n", group=FILES, help="Print only the first N findings.")
    jsonl: bool = option(False, group=FILES, help="Print one JSON object per finding.")
    coco: Path | None = option(None, metavar="FILE", group=FILES,
        help="Also write the findings as a COCO file, for CVAT and FiftyOne.")
    label_studio: Path | None = option(None, metavar="FILE", group=FILES,
        help="Also write the findings as a Label Studio task list, and its labelling interface with the suffix .xml.")
    quiet: bool = option(False, short="q", help=opt.QUIET_HELP)
    # fmt: on


@command(EPILOG)
def audit(output: opt.Folder, auditing: Auditing, question: Annotated[opt.Question, Only("classes", "vocab")]) -> int:
    """Find likely errors in existing labels, and things without a label."""
    from tipsseg.commands.audit import audit as audit_labels
    from tipsseg.commands.audit import write_coco, write_label_studio
    from tipsseg.util.json import json_bytes

    if auditing.coco is not None and auditing.coco == auditing.label_studio:
        raise UsageError("--coco and --label-studio name the same file", "Choose two files.")
    written = ((write_coco, auditing.coco), (write_label_studio, auditing.label_studio))
    named = question.classes or question.vocab
    with open_progress(auditing.quiet, results=False) as progress:
        classes = values.parse_question(question)[0] if named else None
        result = audit_labels(output, auditing.labels, classes, verbose=progress)
        for write, file in written:
            if file is not None:
                write(result, file)
                progress.note(f"Wrote {file}.")
        for finding, record in islice(zip(result.findings, result.records(), strict=True), auditing.limit):
            progress.text(
                json_bytes(record).decode() + "\n" if auditing.jsonl else _line(record, result.describe(finding.doubt))
            )
        left = f"; {pluralize(result.unlabelled, 'image')} without labels" if result.unlabelled else ""
        failed = f"; {result.failed} failed" if result.failed else ""
        progress.note(
            f"{pluralize(len(result.findings), 'finding')} in {pluralize(result.audited, 'image')}{left}{failed}"
        )
    return result.failed


def _line(record: Mapping[str, object], words: str) -> str:
    x, y, w, h = record["bbox"]  # type: ignore[misc]  # four numbers
    place = f"{w} x {h} pixels at x {x}, y {y}"  # type: ignore[has-type]
    return f"{record['score']:.2f}  {record['image']}: {place}: {words}\n"
