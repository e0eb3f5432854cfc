package main

import (
	"bytes"
	"testing"

	"github.com/terraform-providers/terraform-provider-docker/pulumi/docker"
)

func TestSchemaIsThatOfThePinnedProvider(t *testing.T) {
	text, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, docker.Schema) {
		t.Error("docker/schema.json differs from the provider's schema; next: run `go generate ./docker`")
	}
}
