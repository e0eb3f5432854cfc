package publish

import (
	"context"
	"fmt"
	"slices"
)

// loopbackRule drops packets from containers to 127.0.0.0/8 of this host. Without it containers could reach services on
// 127.0.0.1, because the host interfaces of all veth pairs have route_localnet (Felix sets it too), which published ports
// on 127.0.0.1 need. Replies from a published port are not dropped, because before NAT they have another destination.
var loopbackRule = []string{
	"PREROUTING", "-i", "cali+", "-d", "127.0.0.0/8", "-m", "comment", "--comment", "calico-docker-driver", "-j", "DROP",
}

// applyLoopbackRule adds the rule if it is missing. The rule stays when the driver stops, because the containers stay.
func (p *Ports) applyLoopbackRule() error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	raw := func(action string) error {
		return p.Run(ctx, "", "iptables", slices.Concat([]string{"-w", "-t", "raw", action}, loopbackRule)...)
	}
	if raw("-C") == nil {
		return nil
	}
	if err := raw("-A"); err != nil {
		return fmt.Errorf("add the rule that protects this host's 127.0.0.1 from containers: %w", err)
	}
	return nil
}
