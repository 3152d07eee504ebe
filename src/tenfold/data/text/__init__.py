"""Text: corpora and tokenizers."""
