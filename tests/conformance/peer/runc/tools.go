//go:build tools

// Package runc pins the low-level runtime under the containerd that Joey is compared with.
package runc

import _ "github.com/opencontainers/runc"
