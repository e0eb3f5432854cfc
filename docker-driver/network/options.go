package network

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"calico-lab/docker-driver/ipam"
	"calico-lab/docker-driver/plugin"
)

// The minimum MTU of IPv6 and the maximum size of an IP packet.
const (
	smallestMTU = 1280
	largestMTU  = 65535
)

// checkOptions returns the MTU, or 0 if it is not specified, and an error for options that a Calico network does not
// support. Other options are the engine's own.
func checkOptions(all map[string]any) (int, error) {
	mtu := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch name {
		case plugin.OptionInternal:
			if all[name] == true {
				return 0, fmt.Errorf("--internal: on a Calico network policies restrict outgoing traffic; create it without " +
					"--internal and apply a GlobalNetworkPolicy for its label " + PoolLabel)
			}
		case plugin.OptionGeneric:
			generic, _ := all[name].(map[string]any)
			for _, option := range slices.Sorted(maps.Keys(generic)) {
				if option == ipam.PoolOption || option == ipam.BlockSizeOption {
					return 0, fmt.Errorf("-o %s: Docker passes this option too late; specify it with --ipam-opt", option)
				}
				if option != plugin.OptionMTU {
					return 0, fmt.Errorf("-o %s: not an option of a Calico network; the option is %s", option, plugin.OptionMTU)
				}
				text := fmt.Sprint(generic[option])
				number, err := strconv.Atoi(text)
				if err != nil || number < smallestMTU || number > largestMTU {
					return 0, fmt.Errorf("-o %s=%s: an MTU is a number from %d to %d", option, text, smallestMTU, largestMTU)
				}
				mtu = number
			}
		}
	}
	return mtu, nil
}
