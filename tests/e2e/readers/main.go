// Reads what client-config wrote as the tools do that it is for, and prints what they make of it as JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	buildkit "github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/rancher/wharfie/pkg/registries"
)

func read(tool, file string) (any, error) {
	switch tool {
	case "buildkit":
		told, err := buildkit.LoadFile(file)
		return told.Registries, err
	case "k3s":
		told, err := registries.GetPrivateRegistries(file)
		if err != nil {
			return nil, err
		}
		return told.Registry, nil
	}
	return nil, fmt.Errorf("no reader for %q", tool)
}

func main() {
	told, err := read(os.Args[1], os.Args[2])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(told)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
