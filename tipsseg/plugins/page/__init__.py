"""Write a web page to review and correct labels, and read what it saves."""

from tipsseg.say import NOTES

NOTES |= {
    "page.drawing": "Drawing {images} of {output} into {folder}.",
    "page.drawn": "{counts} in {seconds} s, into {folder}",
    "page.no_image_labelled": "The other labels have no image of this run. Labels are matched by the names of images.",
    "page.no_image_found": "None of the findings is about an image of this run. They are matched by image names.",
    "page.not_compared": "Did not compare {images} with other images: no features in {features}.",
}
