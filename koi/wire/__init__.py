"""What nodes say to each other, as bytes: codec, seal and sockets."""
