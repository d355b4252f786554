"""Label the images of folders."""
