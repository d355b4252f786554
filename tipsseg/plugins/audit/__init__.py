"""Find likely errors in existing labels: `tipsseg audit`."""

from tipsseg.say import NOTES

NOTES |= {
    "audit.comparing": "Comparing {images} of {output} with {labels}.",
    "audit.absent": "Did not judge the regions of {names} in {labels}: {lacking} lacks these classes. To judge them: "
    "tipsseg label IMAGES -m {model} {classes} -f npz -o {output}",
    "audit.absent_in_file": "Did not judge the regions of {names} in {labels}: {lacking} lacks these classes. To judge them, add "
    "them to {source}: tipsseg label IMAGES -m {model} --vocab {source} -f npz -o {output}",
}
