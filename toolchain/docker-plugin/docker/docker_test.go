package docker

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfbridge"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource"
	"github.com/pulumi/pulumi/sdk/v3/go/common/resource/plugin"
	pulumirpc "github.com/pulumi/pulumi/sdk/v3/proto/go"
	"google.golang.org/protobuf/types/known/emptypb"
)

func server(t *testing.T) pulumirpc.ResourceProviderServer {
	t.Helper()
	info := Provider()
	return tfbridge.NewProvider(context.Background(), nil, "docker", Version, info.P, info, Schema)
}

// check returns the checked inputs of a resource "it", as the engine requests them before every diff.
func check(t *testing.T, token string, inputs resource.PropertyMap) (resource.PropertyMap, []*pulumirpc.CheckFailure) {
	t.Helper()
	news, err := plugin.MarshalProperties(inputs, plugin.MarshalOptions{KeepUnknowns: true, KeepSecrets: true})
	if err != nil {
		t.Fatal(err)
	}
	response, err := server(t).Check(context.Background(), &pulumirpc.CheckRequest{
		Urn:        "urn:pulumi:lab::lab::" + token + "::it",
		News:       news,
		RandomSeed: make([]byte, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	checked, err := plugin.UnmarshalProperties(response.GetInputs(), plugin.MarshalOptions{KeepUnknowns: true})
	if err != nil {
		t.Fatal(err)
	}
	return checked, response.GetFailures()
}

func TestGetPluginInfoVersion(t *testing.T) {
	info, err := server(t).GetPluginInfo(context.Background(), &emptypb.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if info.GetVersion() != "5.2.0" {
		t.Errorf("version %q", info.GetVersion())
	}
}

func TestGetSchemaHasTheSDKsNames(t *testing.T) {
	var schema struct {
		Config    struct{ Variables map[string]any }
		Resources map[string]struct {
			InputProperties map[string]struct{ Type string }
		}
	}
	response, err := server(t).GetSchema(context.Background(), &pulumirpc.GetSchemaRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(response.GetSchema()), &schema); err != nil {
		t.Fatal(err)
	}
	for token, inputs := range map[string]map[string]string{
		"docker:index/container:Container": {
			"command": "array", "networksAdvanced": "array", "envs": "array", "memory": "integer",
		},
		"docker:index/network:Network":             {"ipamConfigs": "array"},
		"docker:index/remoteImage:RemoteImage":     {"build": "", "triggers": "object"},
		"docker:index/serviceConfig:ServiceConfig": {"data": "string"},
		"docker:index/volume:Volume":               {"driverOpts": "object"},
	} {
		for name, kind := range inputs {
			if property, found := schema.Resources[token].InputProperties[name]; !found || property.Type != kind {
				t.Errorf("%s %s: found %v, type %q instead of %q", token, name, found, property.Type, kind)
			}
		}
	}
	if _, found := schema.Config.Variables["registryAuth"]; !found {
		t.Error("the provider has no registryAuth")
	}
}

func TestCheckGeneratesContainerNamesOnly(t *testing.T) {
	container, failures := check(t, "docker:index/container:Container",
		resource.PropertyMap{"image": resource.NewProperty("image")})
	if len(failures) > 0 || !strings.HasPrefix(container["name"].StringValue(), "it-") {
		t.Errorf("name %v, failures %v", container["name"], failures)
	}
	_, failures = check(t, "docker:index/remoteImage:RemoteImage", resource.PropertyMap{})
	if len(failures) != 1 || !strings.Contains(failures[0].GetReason(), "name") {
		t.Errorf("an image without a name: failures %v", failures)
	}
}

func TestCheckKeepsUnknownInputs(t *testing.T) {
	container, failures := check(t, "docker:index/container:Container",
		resource.PropertyMap{"image": resource.MakeComputed(resource.NewProperty(""))})
	if len(failures) > 0 || !container["image"].IsComputed() {
		t.Errorf("image %v, failures %v", container["image"], failures)
	}
}

func TestContainerIsDeletedBeforeReplacement(t *testing.T) {
	if !Provider().Resources["docker_container"].DeleteBeforeReplace {
		t.Error("the name, address and ports of the old container are still in use when the new one is created")
	}
}
