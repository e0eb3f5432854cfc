// Command pulumi-resource-docker serves the docker package to the Pulumi engine.
package main

import (
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"

	"github.com/terraform-providers/terraform-provider-docker/pulumi/docker"
)

func main() {
	tfbridge.Main("docker", docker.Version, docker.Provider(), docker.Schema)
}
