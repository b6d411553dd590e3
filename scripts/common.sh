# Sourced by the scripts: paths, and sections with their time.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export JOEY_CACHE=${JOEY_CACHE:-/var/cache/joey}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$JOEY_CACHE/target}
export JOEY_BIN=${JOEY_BIN:-$JOEY_CACHE/bin}

SECTION='' SECTION_BEGAN=0

# Ends the section before and names the next one; without a name it only ends.
section() {
    if [ -n "$SECTION" ]; then
        printf '== %s: %s s\n\n' "$SECTION" "$((SECONDS - SECTION_BEGAN))"
    fi
    SECTION=${1:-} SECTION_BEGAN=$SECONDS
    [ -z "$SECTION" ] || printf '== %s\n' "$SECTION"
}

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}
