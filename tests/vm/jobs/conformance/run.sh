#!/bin/bash
# In the guest: critest against a runtime that systemd started. `settings` says which and what:
# RUNTIME, FOCUS (a regular expression; empty: all), PARALLEL (a number of processes), WEBSOCKET
# (empty: SPDY), DIGEST (of test-image-digest), SECONDS_MAX.
set -uo pipefail
# shellcheck source=../guest.sh
source ./guest.sh
# shellcheck source=/dev/null
source ./settings

finish() { # CODE
    guest_state
    exit "$1"
}

echo "guest: kernel $(uname -r), $(systemctl --version | head -n 1), AppArmor" \
    "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo N)"
[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || { echo "no unified hierarchy"; exit 1; }

guest_network && guest_registry && guest_runtime "$RUNTIME" || finish 1
guest_warm_up >"$OUT/warm-up.log" 2>&1 || { cat "$OUT/warm-up.log"; finish 1; }
# critest itself leaves shared memory and mounts; an idle connection to the registry may end.
[ "$RUNTIME" != joey ] || ./leak-check save "$OUT/before.json" --daemon-pid "$(guest_daemon_pid)" \
    --dir /var/lib/joey --dir /run/joey --ignore '^shm ' --ignore '^/var/tmp/critest/' \
    --ignore 'socket tcp to port 5000$'

flags=(-config /nonexistent -runtime-endpoint "unix://$SOCKET" -report-dir "$OUT"
    -ginkgo.json-report "$OUT/report.json" -ginkgo.no-color -ginkgo.v -ginkgo.seed 1)
[ "$PARALLEL" = 1 ] || flags+=(-parallel "$PARALLEL")
[ -z "$WEBSOCKET" ] || flags+=(-websocket-exec -websocket-attach -websocket-portforward)
partial=()
if [ -n "$FOCUS" ]; then
    flags+=(-ginkgo.focus "$FOCUS")
    partial=(--partial)
fi

mkdir -p /var/tmp/critest
began=$SECONDS
# In parallel mode critest looks for ginkgo in PATH. Its own exit code says less than the report.
(cd /var/tmp/critest && TMPDIR=/var/tmp/critest timeout --kill-after=30 "$SECONDS_MAX" \
    "$JOB/bin/critest" "${flags[@]}" >"$OUT/critest.log" 2>&1)
took=$((SECONDS - began))

code=0
if [ -s "$OUT/report.json" ]; then
    ./judge "$OUT/report.json" expected.json "$OUT/results.json" "${partial[@]}" \
        runtime="$RUNTIME" parallel="$PARALLEL" transport="${WEBSOCKET:+websocket}" \
        machine=guest seconds="$took" kernel="$(uname -r)" \
        test_image_digest="$DIGEST" || code=1
else
    echo "critest wrote no report; the end of its log:"
    tail -n 30 "$OUT/critest.log"
    code=1
fi
echo "critest took $took s in the guest"

guest_clean >"$OUT/clean.log" 2>&1 || { tail -n 20 "$OUT/clean.log"; code=1; }
[ "$RUNTIME" != joey ] || ./leak-check compare "$OUT/before.json" --settle 30 || code=1
finish $code
