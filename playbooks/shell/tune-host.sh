#!/bin/sh
# Makes this host as a profile wants it.
#
#   tune-host.sh PROFILE [--check] [OPTION of tvops tune]...
#
# Shows what would change; with --check that is all. Otherwise changes it: a required setting that fails undoes the
# whole run. Prints the outcome in one word; words and exit codes stand in outcome.sh.
set -u

# shellcheck source-path=SCRIPTDIR source=outcome.sh
. "$(dirname -- "$0")/outcome.sh"

if [ $# -lt 1 ] || [ "${1#-}" != "$1" ]; then
    say "usage: tune-host.sh PROFILE [--check] [OPTION of tvops tune]..."
    exit 2
fi
profile=$1
shift

check=no
if [ "${1:-}" = --check ]; then
    check=yes
    shift
fi

call_tvops tune --profile "$profile" --check "$@"
list_items pending privilege restart reboot serve >&2
if [ $check = yes ] || [ "$outcome" != pending ]; then finish; fi

call_tvops tune --profile "$profile" --yes "$@"
list_items failed undone stuck refused >&2
finish
