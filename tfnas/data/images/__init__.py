"""From image files to batches: decoding, stores and packs, transforms, loaders."""
