"""The tests, a folder per room of the library; what they share is in `helpers`."""
