#!/bin/sh
# Undoes a run of tvops tune on this host: the last one, or the one that is named (tvops tune history lists them).
#
#   rollback.sh [ID] [OPTION of tvops tune rollback]...
#
# Exit code 7 where something could not be restored, or was changed by somebody else since: it is named then, and
# --force restores it all the same. Words and exit codes stand in outcome.sh.
set -u

# shellcheck source-path=SCRIPTDIR source=outcome.sh
. "$(dirname -- "$0")/outcome.sh"

call_tvops tune rollback --yes "$@"
printf '%s\n' "$report" | awk '
    function text(line) { sub(/^[^:]*: */, "", line); gsub(/^"|",?$/, "", line); return line }
    /^ *"name":/ { name = text($0) }
    /^ *"outcome":/ { outcome = text($0) }
    /^ *"reason":/ && (outcome == "conflict" || outcome == "stuck") { print outcome ": " name ": " text($0) }' >&2
finish
