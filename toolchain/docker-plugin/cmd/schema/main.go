// Command schema prints the docker package's Pulumi schema without descriptions, which are most of it.
package main

import (
	"encoding/json"
	"io"
	"log"
	"os"

	"github.com/pulumi/pulumi-terraform-bridge/v3/pkg/tfgen"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag"
	"github.com/pulumi/pulumi/sdk/v3/go/common/diag/colors"

	"github.com/terraform-providers/terraform-provider-docker/pulumi/docker"
)

func main() {
	text, err := schema()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := os.Stdout.Write(text); err != nil {
		log.Fatal(err)
	}
}

func schema() ([]byte, error) {
	result, err := tfgen.GenerateSchemaWithOptions(tfgen.GenerateSchemaOptions{
		ProviderInfo:    docker.Provider(),
		DiagnosticsSink: diag.DefaultSink(io.Discard, io.Discard, diag.FormatOptions{Color: colors.Never}),
		XInMemoryDocs:   true,
	})
	if err != nil {
		return nil, err
	}
	result.PackageSpec.Language = nil
	encoded, err := json.Marshal(result.PackageSpec)
	if err != nil {
		return nil, err
	}
	var tree any
	if err := json.Unmarshal(encoded, &tree); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(withoutDescriptions(tree), "", " ")
	return append(text, '\n'), err
}

// withoutDescriptions removes descriptions. A property named "description" is an object and stays.
func withoutDescriptions(tree any) any {
	switch node := tree.(type) {
	case map[string]any:
		if _, isText := node["description"].(string); isText {
			delete(node, "description")
		}
		for key, value := range node {
			node[key] = withoutDescriptions(value)
		}
	case []any:
		for i, value := range node {
			node[i] = withoutDescriptions(value)
		}
	}
	return tree
}
