#!/bin/bash
# In the guest: a kubelet as a node has it, under systemd, with a static pod. It is not told the
# cgroup driver: the runtime tells it. `settings` says RUNTIME.
set -uo pipefail
# shellcheck source=../guest.sh
source ./guest.sh
# shellcheck source=../../../conformance/static-pod/kubelet.sh
source ./kubelet.sh
# shellcheck source=/dev/null
source ./settings

manifests=/etc/kubernetes/manifests
burstable=/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice

finish() { # CODE
    journalctl --no-pager --output cat --unit kubelet >"$OUT/kubelet.log" 2>&1
    guest_state
    exit "$1"
}

echo "guest: kernel $(uname -r), $(systemctl --version | head -n 1)"
guest_network && guest_registry && guest_runtime "$RUNTIME" || finish 1
guest_warm_up >"$OUT/warm-up.log" 2>&1 || { cat "$OUT/warm-up.log"; finish 1; }
# The kubelet's own slices stay, as they do on a node.
[ "$RUNTIME" != joey ] || ./leak-check save "$OUT/before.json" --daemon-pid "$(guest_daemon_pid)" \
    --dir /var/lib/joey --dir /run/joey \
    --ignore '/kubepods(-burstable|-besteffort)?\.slice$' --ignore '/kubelet\.service$' \
    --ignore 'socket tcp to port 5000$'

mkdir -p $manifests
kubelet_config "$SOCKET" $manifests >/etc/kubernetes/kubelet.yaml
systemd-run --quiet --unit kubelet "$JOB/bin/kubelet" --config /etc/kubernetes/kubelet.yaml \
    --hostname-override smoke --node-ip 192.0.2.1 -v=2 || finish 1

code=0
./check $manifests "$OUT" --cgroup "$burstable/kubepods-burstable-pod{uid}.slice" || {
    code=1
    echo "the end of the kubelet's log:"
    journalctl --no-pager --output cat --unit kubelet --lines 20
}
systemctl stop kubelet
guest_clean >"$OUT/clean.log" 2>&1 || { tail -n 20 "$OUT/clean.log"; code=1; }
[ "$RUNTIME" != joey ] || ./leak-check compare "$OUT/before.json" --settle 30 || code=1
finish $code
