package main

import (
	"bytes"
	"testing"

	"github.com/terraform-providers/terraform-provider-docker/pulumi/docker"
)

func TestTheCommittedSchemaIsThatOfThePinnedProvider(t *testing.T) {
	text, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, docker.Schema) {
		t.Error("docker/schema.json is not what the provider gives: run `go generate ./docker`")
	}
}
