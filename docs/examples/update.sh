#!/bin/sh
# Changes a running container's limits and environment. Usage: update.sh IMAGE
set -eu
joey run -d --name example-update -m 64m --cpus 1 "$1" sleep 1000
joey update -m 128m --cpus 0.5 --pids-limit 50 -e GREETING=hello example-update
joey exec example-update sh -c 'echo $GREETING'
joey inspect example-update # .HostConfig.Resources: base, overlays, what is in force
joey update -m 0 --cpus 0 example-update # no limit
joey rm -f example-update
