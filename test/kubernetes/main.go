// Renders a kustomization and decodes each document strictly into the types of Kubernetes: an unknown field, a wrong
// type and a duplicate key are errors. Run by test/kubernetes/manifests.ts.
//
//	go run . FOLDER        prints the rendered documents as a JSON array, and fails for an invalid one
//	go run . - < FILE      validates each JSON document of a JSON array; prints an array of errors ("" for none)
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: go run . FOLDER, or - for documents on standard input"))
	}
	if os.Args[1] == "-" {
		text, err := io.ReadAll(os.Stdin)
		fail(err)
		var documents []json.RawMessage
		fail(json.Unmarshal(text, &documents))
		messages := make([]string, len(documents))
		for index, document := range documents {
			if err := decode(document); err != nil {
				messages[index] = err.Error()
			}
		}
		fail(json.NewEncoder(os.Stdout).Encode(messages))
		return
	}
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), os.Args[1])
	fail(err)
	documents := []json.RawMessage{}
	for _, resource := range rendered.Resources() {
		text, err := resource.MarshalJSON()
		fail(err)
		if err := decode(text); err != nil {
			fail(fmt.Errorf("%s %s: %w", resource.GetKind(), resource.GetName(), err))
		}
		documents = append(documents, text)
	}
	fail(json.NewEncoder(os.Stdout).Encode(documents))
}

func decode(text []byte) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		apps.AddToScheme, autoscaling.AddToScheme, batch.AddToScheme, core.AddToScheme,
		networking.AddToScheme, policy.AddToScheme, monitoring.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	strict := serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme,
		serializer.SerializerOptions{Strict: true})
	_, _, err := strict.Decode(text, nil, nil)
	return err
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
