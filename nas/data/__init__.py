"""Images: data sets, files, splits, augmentation."""
