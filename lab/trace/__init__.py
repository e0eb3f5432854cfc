"""`lab trace`: the real way of a packet from a container of the lab, with the facts at each hop.

A packet is sent, and the kernels of the hosts at both ends say what became of it; Docker, Calico, BIRD and
the routing tables say why. `ends` finds who is meant, `walk` sends and listens, `side`, `packets` and `felix`
read what a host says, `hops` tells the way, `loss` judges it, and `told` prints it.
"""
