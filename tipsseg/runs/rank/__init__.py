"""Which images of a run a person looks at first, and what a run says of them."""
