"""List, print and check vocabularies."""

from __future__ import annotations

from typing import Annotated

from tipsseg.ask import Ask, verb
from tipsseg.options.fields import WHAT, Opt
from tipsseg.say import print_text
from tipsseg.util.text import did_you_mean, pluralize
from tipsseg.verbs.shared import Background

# fmt: off
_Name = Annotated[str, Opt(argument=True, metavar="NAME", choices="presets", help="A preset or a vocabulary file.")]
_Templates = Annotated[str | None, Opt(metavar="NAME|FILE", group=WHAT, choices=("protocol", "plain"), rare=True,
    help="Prompt templates: protocol, plain, or a file with one per line.  [default: the vocabulary's, or protocol]")]
# fmt: on


@verb("vocab list")
def list_presets(ask: Ask) -> None:
    """List the presets for --vocab."""
    from tipsseg.vocabulary.files import preset_names, preset_summary, read_vocabulary

    for name in preset_names():
        vocabulary = read_vocabulary(name)
        with_background = " + background" if vocabulary.background else ""
        print_text(f"{name:20} {len(vocabulary.classes):4} classes{with_background:13}  {preset_summary(name)}\n")


@verb("vocab show")
def show(ask: Ask, name: _Name, *, background: Background = None, templates: _Templates = None) -> None:
    """Print a vocabulary as a TOML file, for example as a starting point for your own."""
    from tipsseg.vocabulary.asked import asked_vocabulary
    from tipsseg.vocabulary.files import vocabulary_toml

    vocabulary, fitted = asked_vocabulary(None, name, background, templates)
    if fitted is not None:
        print_text(f"# The phrases of {name}. Only that file has their vectors and the temperature.\n")
    print_text(vocabulary_toml(vocabulary))


@verb("vocab check")
def check(ask: Ask, name: _Name) -> None:
    """Check a vocabulary, and print its classes; an error names the file and the line."""
    from tipsseg.say import progress_for
    from tipsseg.vocabulary.asked import asked_vocabulary
    from tipsseg.vocabulary.rivals import describe_rivals

    vocabulary, fitted = asked_vocabulary(None, name)
    negative = len(vocabulary.specs) - len(vocabulary.classes)
    phrases = pluralize(len(vocabulary.background), "phrase") if vocabulary.background else "none"
    background = "auto" if vocabulary.auto else phrases
    parts = [
        pluralize(len(vocabulary.classes), "class", "classes"),
        pluralize(len(vocabulary.phrases) - len(vocabulary.background_texts), "phrase"),
        *([f"{negative} negative"] if negative else []),
        f"background {background}",
        pluralize(len(vocabulary.templates), "template"),
        *([f"fitted with the model {fitted.model_id}"] if fitted else []),
    ]
    print_text(f"{name}: ok, {', '.join(parts)}\n")
    for text in describe_rivals(vocabulary):
        progress_for(True).say(text)
    listed = [spec.name for spec in vocabulary.specs[: vocabulary.listed]]
    for entry in vocabulary.classes:
        facts = [f"({', '.join(entry.synonyms)})"] if entry.synonyms else []
        if entry.part_of:
            facts.append(f"part of {vocabulary.classes[entry.part_of - 1].name}")
        if entry.name not in listed:
            facts += ["a whole that is not listed", did_you_mean(entry.name, listed, 0.8).strip()]
        print_text("  ".join([f"{entry.id:5}", entry.name, *filter(None, facts)]) + "\n")
