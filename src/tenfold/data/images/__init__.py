"""Images: readers, augmentation, checks and recipes of image sets."""
