"""Classification heads: what a backbone says of an image in, logits out."""
