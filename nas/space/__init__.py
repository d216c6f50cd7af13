"""What can be searched: operators, macro spaces, architectures, and the networks that they describe."""
