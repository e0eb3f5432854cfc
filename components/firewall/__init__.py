"""FirewallPolicy: firewall rules for hosts that cannot lock the operator out."""
