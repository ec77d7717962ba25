#!/bin/sh
# Tells whether this host still is as a profile wants it. Changes nothing.
#
#   verify-drift.sh PROFILE [OPTION of tvops tune verify]...
#
# What differs goes to stderr, the outcome in one word to stdout: pending (exit code 3) where something has drifted.
# Words and exit codes stand in outcome.sh.
set -u

# shellcheck source-path=SCRIPTDIR source=outcome.sh
. "$(dirname -- "$0")/outcome.sh"

if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
    say "usage: verify-drift.sh PROFILE [OPTION of tvops tune verify]..."
    exit 2
fi
profile=$1
shift

call_tvops tune verify --profile "$profile" "$@"
list_items pending privilege restart reboot serve >&2
finish
