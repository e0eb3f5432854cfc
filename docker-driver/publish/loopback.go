package publish

import (
	"context"
	"fmt"
	"slices"
)

// shield is the rule that keeps containers from what listens on this host's 127.0.0.1. So that published ports can be
// reached by that address, the host's ends of all veth pairs have route_localnet, from Felix too, and with it the kernel
// takes packets to that network from a container for its own. What answers a published port has another destination when
// it comes here, before NAT.
var shield = []string{
	"PREROUTING", "-i", "cali+", "-d", "127.0.0.0/8", "-m", "comment", "--comment", "calico-docker-driver", "-j", "DROP",
}

// applyShield sees to the rule, which stays when the driver ends, as the containers do.
func (p *Ports) applyShield() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	raw := func(action string) error {
		return p.Run(ctx, "", "iptables", slices.Concat([]string{"-w", "-t", "raw", action}, shield)...)
	}
	if raw("-C") == nil {
		return nil
	}
	if err := raw("-A"); err != nil {
		return fmt.Errorf("keep containers from this host's 127.0.0.1: %w", err)
	}
	return nil
}
