"""What several rooms' tests share: the tests' folder is on the import path, so that `tiny_spaces` can be imported."""
