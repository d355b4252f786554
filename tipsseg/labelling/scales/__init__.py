"""Images that the model sees at several scales: their scores, and labels by them."""
