"""Find, identify and open images in any place: files, URLs, members of archives, rows of data sets, frames of videos."""
