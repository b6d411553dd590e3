//go:build tools

// Package metricsserver pins what answers `kubectl top`.
package metricsserver

import _ "sigs.k8s.io/metrics-server/cmd/metrics-server"
