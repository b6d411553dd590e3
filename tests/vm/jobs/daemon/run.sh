#!/bin/bash
# In the guest: a runtime under systemd with its own unit, from the first pull to the last
# removal; restarts, a crash, limits that survive daemon-reload. `settings` says RUNTIME.
set -uo pipefail
# shellcheck source=../guest.sh
source ./guest.sh
# shellcheck source=/dev/null
source ./settings

passed=0 failed=0
dir=/run/test-smoke
slice=kubepods-burstable-podsmoke.slice
mkdir -p $dir/logs

check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >$dir/output 2>&1; then
        passed=$((passed + 1))
        echo "ok: $name"
    else
        failed=$((failed + 1))
        echo "failed: $name"
        tail -n 8 $dir/output | cut -c -400 | sed 's/^/    /'
    fi
}

is() { # WHAT EXPECTED
    [ "$1" = "$2" ] || { echo "'$1' instead of '$2'"; return 1; }
}

eventually() { # COMMAND...
    local attempt
    for attempt in $(seq 100); do
        "$@" && return 0
        sleep 0.3
    done
    return 1
}

pod_config() {
    cat >$dir/pod.json <<JSON
{"metadata": {"name": "smoke", "uid": "smoke", "namespace": "default", "attempt": 0},
 "log_directory": "$dir/logs", "linux": {"cgroup_parent": "$slice"}}
JSON
}

container_config() { # NAME, a JSON array of the command
    cat >"$dir/$1.json" <<JSON
{"metadata": {"name": "$1", "attempt": 0}, "image": {"image": "$BUSYBOX"}, "command": $2,
 "log_path": "$1.log", "linux": {"resources":
   {"memory_limit_in_bytes": 67108864, "cpu_period": 100000, "cpu_quota": 50000, "cpu_shares": 512}}}
JSON
}

start() { # NAME: creates and starts it in the pod, prints its id
    local id
    id=$(crictl create "$pod" "$dir/$1.json" $dir/pod.json) && crictl start "$id" >&2 && echo "$id"
}

state() { crictl inspect --output go-template --template '{{.status.state}}' "$1"; }
exit_code() { crictl inspect --output go-template --template '{{.status.exitCode}}' "$1"; }
state_is() { is "$(state "$1")" "$2"; }
ended_with() { is "$(state "$1") $(exit_code "$1")" "CONTAINER_EXITED $2"; }
main_process() { pgrep -fx 'sleep 86401'; }
limit_is() { is "$(cat "$group/$1")" "$2"; }
answers() { crictl version; }

daemon_is_not() { # PID
    local now
    now=$(guest_daemon_pid)
    [ "$now" != 0 ] && [ "$now" != "$1" ]
}

# systemd removes the group of an ended container before its shim, which is stopped, can look.
oom_is_told_without_the_group() {
    local id group process shim
    id=$(start hog) || return 1
    group=$(find /sys/fs/cgroup -name "*$id*" -type d)
    read -r process <"$group/cgroup.procs" || return 1
    shim=$(ps -o ppid= -p "$process")
    kill -STOP "$shim"
    touch "/proc/$process/root/go"
    eventually [ ! -e "$group" ]
    kill -CONT "$shim"
    [ ! -e "$group" ] || { echo "systemd keeps $group"; return 1; }
    eventually state_is "$id" CONTAINER_EXITED &&
        is "$(crictl inspect --output go-template --template '{{.status.reason}}' "$id")" OOMKilled &&
        crictl rm "$id"
}

exec_works() { is "$(crictl exec --sync "$main" echo hello)" hello; }

limits_hold() { limit_is memory.max 134217728 && limit_is cpu.max "25000 100000"; }

finish() {
    guest_state
    echo "smoke: $passed passed, $failed failed, 0 skipped"
    exit $((failed > 0))
}

echo "guest: kernel $(uname -r), $(systemctl --version | head -n 1)"
guest_network && guest_registry || { failed=1; finish; }
check "systemd starts the runtime and hears that it is ready" guest_runtime "$RUNTIME"
[ $failed = 0 ] || finish
systemctl start $slice
guest_warm_up >$dir/warm-up.log 2>&1 || { cat $dir/warm-up.log; failed=1; finish; }
if [ "$RUNTIME" = joey ]; then
    # The parent of joey's own pods, and the folder of their logs.
    joey run --rm --name warm-up $BUSYBOX true && joey rmi $BUSYBOX
    # Each start of the daemon is a new process with its own folder for layers being written.
    ./leak-check save $dir/before.json --dir /var/lib/joey --dir /run/joey \
        --ignore '/images/staging/[0-9a-f]+$' --ignore '^[0-9]+ joeyd \[/usr/bin/joeyd\]'
fi

check "pull" crictl pull $BUSYBOX
pod_config
container_config main '["sleep", "86401"]'
container_config short '["sh", "-c", "echo out; echo err >&2; sleep 8; exit 7"]'
container_config hog \
    '["sh", "-c", "until [ -e /go ]; do sleep 0.2; done; exec dd if=/dev/zero of=/dev/null bs=200M"]'
check "run a pod" eval 'pod=$(crictl runp $dir/pod.json)'
check "start a container" eval 'main=$(start main)'
check "start another one that ends later" eval 'short=$(start short)'
check "it runs" state_is "$main" CONTAINER_RUNNING
check "exec" exec_works
process=$(main_process)
group=/sys/fs/cgroup$(cut -d: -f3 "/proc/$process/cgroup")
case $group in */$slice/*) inside=yes ;; *) inside="no: $group" ;; esac
check "its group is in the pod's slice" is "$inside" yes
check "systemd knows the group" systemctl is-active "$(basename "$group")"
check "the memory limit is set" limit_is memory.max 67108864
check "the CPU limit is set" limit_is cpu.max "50000 100000"

check "update" crictl update --memory 134217728 --cpu-quota 25000 --cpu-period 100000 "$main"
check "the new limits are set" limits_hold
check "daemon-reload" systemctl daemon-reload
check "the new limits survive it" limits_hold

check "restart by systemd" systemctl restart "$UNIT"
check "it answers again" eventually answers
check "the container runs on" is "$(main_process)" "$process"
check "its state is right" state_is "$main" CONTAINER_RUNNING
check "exec after the restart" exec_works
check "limits after the restart" limits_hold
check "the one that ended meanwhile has its exit code" \
    eventually ended_with "$short" 7
check "and its log" is "$(crictl logs "$short" 2>/dev/null)" out

old=$(guest_daemon_pid)
kill -KILL "$old"
check "systemd starts it again after kill -9" \
    eventually daemon_is_not "$old"
check "it answers after the crash" eventually answers
check "the container survives the crash" is "$(main_process)" "$process"
check "exec after the crash" exec_works
check "limits after the crash" limits_hold

[ "$RUNTIME" != joey ] ||
    check "an OOM kill is told when the group is gone first" oom_is_told_without_the_group
check "stop" crictl stop --timeout 1 "$main"
check "it is stopped" state_is "$main" CONTAINER_EXITED
check "by SIGTERM" is "$(exit_code "$main")" 143
check "remove containers" crictl rm "$main" "$short"
check "stop the pod" crictl stopp "$pod"
check "remove the pod" crictl rmp "$pod"
check "its group is gone" eventually [ ! -e "$group" ]
check "remove the image" crictl rmi $BUSYBOX

if [ "$RUNTIME" = joey ]; then
    check "joey info" joey info
    check "joey run" eval 'is "$(joey run --rm --name once $BUSYBOX echo hi)" hi'
    check "joey run --detach" joey run --detach --name hello --memory 64m $BUSYBOX sleep 1000
    check "CRI does not see it" is "$(crictl ps --quiet)" ""
    check "joey exec" eval 'is "$(joey exec hello echo hi)" hi'
    check "joey rm" joey rm --force hello
    check "joey rmi" joey rmi $BUSYBOX
    check "nothing is left behind" ./leak-check compare $dir/before.json --settle 30
fi
check "the unit is well" systemctl is-active "$UNIT"
check "no unit of systemd has failed" is "$(systemctl --failed --plain --no-legend)" ""
check "systemd ends it" systemctl stop "$UNIT"
finish
