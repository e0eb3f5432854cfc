"""Services: images, and the containers on the network and in front of it."""
