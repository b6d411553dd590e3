# Sourced by the scripts of tests/vm: paths, and the machines kept in the cache.
#
#   die TEXT...                 says why on standard error and ends with 1
#   vm_machine SUITE [KERNEL]   prints the folder of a frozen machine, which it builds if need be
#   vm_job JOB RUNTIME DIR      lays out a job with the test images and a runtime's programs
#   vm_run WORD SUITE DIR OUT SECONDS    runs it; counts its line "WORD: N passed, N failed, ..."
#   vm_totals OUT               prints the sums; fails if anything failed

VM=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$VM/../.." && pwd)
export JOEY_CACHE=${JOEY_CACHE:-/var/cache/joey}

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# What decides what is in a machine: another state of these files makes another one.
vm_recipe() {
    (cd "$VM" && cat build guest/* lib/*.py snap) | sha256sum | cut -c1-12
}

vm_machine() {
    local suite=$1 kernel=${2:-$1} dir old
    dir=$JOEY_CACHE/vm/$suite-$kernel-$(vm_recipe)
    if [ -e "$dir/frozen/ready" ]; then
        echo "$dir"
        return 0
    fi
    mkdir -p "$JOEY_CACHE/vm"
    # One builder at a time; the one that waited finds the result.
    (
        flock 9
        [ ! -e "$dir/frozen/ready" ] || exit 0
        if [ ! -e "$dir/built" ]; then
            rm -rf "$dir"
            nice "$VM/build" "$dir" "$suite" "$kernel" && touch "$dir/built" || exit 1
        fi
        "$VM/snap" "$dir" || exit 1
        for old in "$JOEY_CACHE/vm/$suite-$kernel"-*; do
            [ "$old" = "$dir" ] || rm -rf "$old"
        done
    ) 9>"$JOEY_CACHE/vm/lock" >&2 || die "no machine with $suite"
    echo "$dir"
}

vm_job() { # JOB joey|containerd DIR
    local job=$1 runtime=$2 dir=$3 tests=$REPO/tests critest program
    mkdir -p "$dir/bin"
    ln -s "$VM/jobs/$job"/* "$VM/jobs/guest.sh" "$tests/tools/leak-check" "$tests/tools/registry" \
        "$dir/"
    vm_images "$dir"
    critest=$("$tests/conformance/build-tools" critest)
    ln -s "$critest/crictl" "$critest/ginkgo" "$dir/bin/"
    case $runtime in
        joey)
            for program in joeyd joey joey-shim; do
                [ -x "${JOEY_BIN:=$JOEY_CACHE/bin}/$program" ] \
                    || die "no $program in $JOEY_BIN: run scripts/build"
                ln -s "$JOEY_BIN/$program" "$dir/bin/"
            done
            ln -s "$REPO/packaging/joeyd.service" "$dir/"
            ;;
        containerd)
            ln -s "$("$tests/conformance/build-tools" containerd)"/* "$dir/bin/"
            ln -s "$("$tests/conformance/build-tools" runc)/runc" "$dir/bin/"
            ;;
        *) die "unknown runtime '$runtime'" ;;
    esac
}

# The registry's folder with the test images, and the mirror settings that lead to it.
vm_images() { # DIR
    local run
    # The namespace has no way out: what images are made from is fetched before.
    "$REPO/tests/images/images" build >&2
    run=$(mktemp -d)
    # Loopback of a network of its own: port 5000 is the guest's, too.
    # shellcheck disable=SC2016
    unshare --net sh -e -c '
        ip link set lo up
        "$1/tools/registry" start "$2" 5000 >/dev/null
        code=0
        "$1/images/images" push --registry http://127.0.0.1:5000 || code=1
        "$1/tools/registry" stop "$2"
        exit $code' sh "$REPO/tests" "$run" >&2 || die "the test images could not be made"
    rm -rf "$run"
    mkdir -p "$1/cache"
    ln -s "$JOEY_CACHE/registry" "$1/cache/registry"
    "$REPO/tests/images/images" mirrors "$1/certs.d" --registry http://127.0.0.1:5000
}

VM_PASSED=0 VM_FAILED=0 VM_SKIPPED=0

vm_run() {
    local word=$1 suite=$2 job=$3 out=$4 seconds=$5 machine totals code=0 ok bad left
    machine=$(vm_machine "$suite")
    echo "== $(basename "$out"): $suite"
    "$VM/run" --timeout "$seconds" "$machine" "$job" "$out" 2>&1 | tee "$out.log" || code=1
    totals=$(sed -nE "s/^$word: ([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped\$/\\1 \\2 \\3/p" \
        "$out.log")
    read -r ok bad left <<<"${totals:-0 0 0}"
    # A run that broke before or beside its checks counts as one failure.
    [ "$code" = 0 ] || [ "$bad" != 0 ] || bad=1
    VM_PASSED=$((VM_PASSED + ok)) VM_FAILED=$((VM_FAILED + bad)) VM_SKIPPED=$((VM_SKIPPED + left))
}

vm_totals() {
    echo "results: $1"
    echo "$VM_PASSED passed, $VM_FAILED failed, $VM_SKIPPED skipped"
    [ "$VM_FAILED" = 0 ]
}
