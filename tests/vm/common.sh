# Sourced by the scripts of tests/vm: paths, and the machines kept in the cache.
#
#   die TEXT...                 says why on standard error and ends with 1
#   vm_machine SUITE [KERNEL]   prints the folder of a frozen machine, which it builds if need be

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
    mkdir -p "$JOEY_CACHE/vm"
    # One builder at a time; the one that waited finds the result.
    (
        flock 9
        [ ! -e "$dir/frozen/ready" ] || exit 0
        rm -rf "$dir"
        nice "$VM/build" "$dir" "$suite" "$kernel" && "$VM/snap" "$dir"
        for old in "$JOEY_CACHE/vm/$suite-$kernel"-*; do
            [ "$old" = "$dir" ] || rm -rf "$old"
        done
    ) 9>"$JOEY_CACHE/vm/lock" >&2 || die "no machine with $suite"
    echo "$dir"
}

# Lays out a job: its own files, the guest's part, the test images and the runtime's programs.
#   vm_job JOB joey|containerd DIR
vm_job() {
    local job=$1 runtime=$2 dir=$3 tests=$REPO/tests critest program
    mkdir -p "$dir/bin"
    ln -s "$VM/jobs/$job"/* "$VM/jobs/guest.sh" "$tests/tools/leak-check" "$tests/tools/registry" \
        "$dir/"
    vm_images "$dir"
    critest=$("$tests/conformance/build-tools" critest)
    ln -s "$critest/crictl" "$dir/bin/"
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
