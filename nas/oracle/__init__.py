"""Tables of networks whose accuracies are known, and searches on them."""
