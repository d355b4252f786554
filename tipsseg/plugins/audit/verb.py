"""Find likely errors in existing labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tipsseg.ask import Ask, verb
from tipsseg.errors import UsageError, Words
from tipsseg.options.fields import FILES, WHAT, Opt
from tipsseg.verbs.shared import Labelled, Named, Vocab

if TYPE_CHECKING:
    from tipsseg.plugins.audit.findings import Audit
    from tipsseg.say import Verbosity

_EPILOG = """\b
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

# fmt: off
_Labels = Annotated[str | Path, Opt(metavar="DIR|FILE", group=WHAT, help="The labels to audit: a folder, zip or file.")]
_Limit = Annotated[int | None, Opt(metavar="N", short="n", group=FILES, help="Print only the first N findings.")]
_Coco = Annotated[str | Path | None, Opt(metavar="FILE", group=FILES,
    help="Also write the findings as a COCO file, for CVAT and FiftyOne.")]
_LabelStudio = Annotated[str | Path | None, Opt(metavar="FILE", group=FILES,
    help="Also write the findings as a Label Studio task list, and its labelling interface with the suffix .xml.")]
# fmt: on


@verb("audit", _EPILOG, jsonl="Print one JSON object per finding.")
def audit(
    ask: Ask,
    output: Labelled,
    labels: _Labels,
    classes: Named = None,
    *,
    vocab: Vocab = None,
    limit: _Limit = None,
    coco: _Coco = None,
    label_studio: _LabelStudio = None,
    verbose: Verbosity = None,
) -> Audit:
    """Find likely errors in existing labels, and things without a label.

        tipsseg.label_folder("photos/", ["tree", "car"], output="seen", formats=["png", "npz"])
        for record in tipsseg.review.audit("seen", "annotations.json").records():
            print(record["score"], record["image"], record["label"], record["seen"])

    Classes are compared by name. Corrected images are left out, as are images without labels. An image that fails is counted and
    left out.

    Args:
        output: The output folder of a run with the format npz, finished or not.
        labels: A folder, zip or file in any format that `correct_folder` reads.
        classes: Classes by name, to add synonyms, or to name the ids of index masks. None: the classes of `vocab`, or of the
            labels.
        verbose: True prints notes, progress and errors on stderr; None only a bar, on a terminal or in a notebook; False nothing.

    Returns:
        The findings, the most doubtful first; `records()` yields them as JSON values.

    Raises:
        TipssegError: The folder or the labels cannot be read, the folder has no scores, or no image has labels.
    """
    from tipsseg.plugins.audit.findings import audit_labels, write_coco, write_label_studio
    from tipsseg.say import progress_for
    from tipsseg.vocabulary.asked import asked_vocabulary

    if coco is not None and coco == label_studio:
        raise UsageError(Words("{coco} and {label_studio} name the same file"), "Choose two files.")
    vocabulary = None if classes is None and vocab is None else asked_vocabulary(classes, vocab)[0]
    with progress_for(verbose) as progress:
        result = audit_labels(Path(output), Path(labels), vocabulary, progress)
        for write, file in ((write_coco, coco), (write_label_studio, label_studio)):
            if file is not None:
                write(result, Path(file))
                progress.note("wrote", file=file)
    return replace(result, findings=result.findings[:limit])
