// Package docker maps the upstream Terraform provider for Docker to the Pulumi package of the pulumi_docker SDK, with
// that SDK's type tokens, property names and defaults. The SDK's Image resource is missing, because the upstream
// provider has none; RemoteImage builds images too.
package docker

import (
	_ "embed"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge/tokens"
	shim "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim"
	shimv2 "github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfshim/sdk-v2"
	"github.com/terraform-providers/terraform-provider-docker/internal/provider"
)

// Version is that of the SDK, because the engine finds the plugin by it.
const Version = "5.2.0"

// Schema is the package's Pulumi schema without descriptions, written by `go generate`.
//
//go:generate sh -c "go run -tags no_compose ../cmd/schema > schema.json"
//go:embed schema.json
var Schema []byte

// Provider describes the package to the bridge.
func Provider() tfbridge.ProviderInfo {
	info := tfbridge.ProviderInfo{
		P:       shimv2.NewProvider(provider.New(Version)()),
		Name:    "docker",
		Version: Version,
		Config: map[string]*tfbridge.SchemaInfo{
			"registry_auth": {Name: "registryAuth"},
		},
		Resources: map[string]*tfbridge.ResourceInfo{
			"docker_config": {Tok: "docker:index/serviceConfig:ServiceConfig"},
			"docker_container": {
				Tok: "docker:index/container:Container",
				// Two containers cannot have the same name, address or published ports.
				DeleteBeforeReplace: true,
				Fields: map[string]*tfbridge.SchemaInfo{
					"command":           {Name: "command"},
					"networks_advanced": {Name: "networksAdvanced"},
				},
			},
			"docker_image": {
				Tok: "docker:index/remoteImage:RemoteImage",
				// The bridge must not generate a name, because an image is identified by it.
				Fields: map[string]*tfbridge.SchemaInfo{"name": {Name: "name"}},
			},
		},
		DataSources: map[string]*tfbridge.DataSourceInfo{
			"docker_image": {Tok: "docker:index/getRemoteImage:getRemoteImage"},
		},
	}
	info.MustComputeTokens(tokens.SingleModule("docker_", "index", tokens.MakeStandard("docker")))
	info.SetAutonaming(255, "-")
	nameProperties(info)
	return info
}

// nameProperties gives each property of a resource the name that the bridge would compute. The bridge looks up a
// property by its name for each value that it compares. Without given names it computes those of all properties each
// time, which takes half of the time of a preview of a container.
func nameProperties(info tfbridge.ProviderInfo) {
	for key, resource := range info.Resources {
		schema := info.P.ResourcesMap().Get(key).Schema()
		if resource.Fields == nil {
			resource.Fields = map[string]*tfbridge.SchemaInfo{}
		}
		schema.Range(func(name string, _ shim.Schema) bool {
			field := resource.Fields[name]
			if field == nil {
				field = &tfbridge.SchemaInfo{}
				resource.Fields[name] = field
			}
			if field.Name == "" {
				field.Name = tfbridge.TerraformToPulumiNameV2(name, schema, resource.Fields)
			}
			return true
		})
	}
}
