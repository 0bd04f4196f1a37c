#!/bin/bash
# kill -9 in a loop under load: ./kill-loop.sh [rounds] [seed]
#
# Writers, producers and live readers load the server; it is killed at random
# moments and restarted, and everything any client was told is checked each
# time. Prints its seed. WEIR_BINARY names a binary to use instead of a build.
set -euo pipefail
cd "$(dirname "$0")"
export WEIR_KILL_ROUNDS="${1:-100}"
if [ $# -ge 2 ]; then export WEIR_KILL_SEED="$2"; fi
exec cargo test --package conformance --test kill_loop -- --nocapture
