#!/bin/sh
# Runs a container out of memory and shows why it ended. Usage: oom.sh IMAGE
set -eu
joey run -d --name example-oom -m 32m "$1" tail /dev/zero
joey wait example-oom
joey inspect example-oom # .State.Error, .State.End.oom: the group, its limit, the process
joey rm example-oom
