//go:build tools

// Package kubelet pins the kubelet that the smoke test runs on Joey.
package kubelet

import _ "k8s.io/kubernetes/cmd/kubelet"
