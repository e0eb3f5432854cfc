package network

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"calico-lab/docker-driver/ipam"
	"calico-lab/docker-driver/plugin"
)

// The smallest MTU that IPv6 allows, and the largest that an IP packet can use.
const (
	smallestMTU = 1280
	largestMTU  = 65535
)

// checkOptions refuses what a person asked for that a Calico network cannot keep, and returns the MTU or 0. Other
// options are the engine's own notes.
func checkOptions(all map[string]any) (int, error) {
	mtu := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		switch name {
		case plugin.OptionInternal:
			if all[name] == true {
				return 0, fmt.Errorf("--internal: on a Calico network policy decides who may leave; create it without " +
					"--internal and apply a GlobalNetworkPolicy for its label " + PoolLabel)
			}
		case plugin.OptionGeneric:
			generic, _ := all[name].(map[string]any)
			for _, option := range slices.Sorted(maps.Keys(generic)) {
				if option == ipam.PoolOption || option == ipam.BlockSizeOption {
					return 0, fmt.Errorf("-o %s: Docker tells this option too late; give it as --ipam-opt", option)
				}
				if option != plugin.OptionMTU {
					return 0, fmt.Errorf("-o %s: not an option of a Calico network; there is %s", option, plugin.OptionMTU)
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
