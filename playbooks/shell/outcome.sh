# shellcheck shell=sh disable=SC2034 # outcome and code are read by the jobs
# Sourced by the jobs beside it: calls tvops with --json and puts what came of it into one word.
#
#   exit code of tvops     outcome   exit code of the job
#   0 nothing to do        ok        0
#   0 something written    changed   0
#   4 some not supported   notes     0
#   3 changes pending      pending   3
#   6 reboot or restart    reboot    6
#   1, 2, 5, 7, others     failed    that of tvops
#
# TVOPS names the program (default: tvops). Passwords and keys belong into its environment, not into arguments.

TVOPS=${TVOPS:-tvops}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

# Sets report (the JSON), code and outcome.
call_tvops() {
    code=0
    report=$("$TVOPS" "$@" --json) || code=$?
    case $code in
        0) if has_written; then outcome=changed; else outcome=ok; fi ;;
        3) outcome=pending ;;
        4) outcome=notes ;;
        6) outcome=reboot ;;
        *) outcome=failed ;;
    esac
}

has_written() {
    printf '%s\n' "$report" | grep -Eq '"outcome": *"written"|"(restored|written)": *[1-9]'
}

# Prints the ids of the items that are in one of the given states, with what stands there and what should.
list_items() {
    printf '%s\n' "$report" | awk -v states=" $* " '
        function text(line) { sub(/^[^:]*: */, "", line); gsub(/^"|",?$|,$/, "", line); return line }
        /^ *"id":/ { id = text($0); current = value = state = reason = "" }
        /^ *"current":/ { current = text($0) }
        /^ *"value":/ { value = text($0) }
        /^ *"state":/ { state = text($0) }
        /^ *"reason":/ { reason = text($0) }
        /^ *"outcome":/ && id != "" {
            told = text($0)
            if (told == "") told = state
            if (index(states, " " told " "))
                printf "%s: %s: %s -> %s%s\n", told, id, current, value, reason == "" ? "" : " (" reason ")"
            id = ""
        }'
}

# Tells the outcome on stdout and ends the job.
finish() {
    printf '%s\n' "$outcome"
    case $outcome in
        ok | changed | notes) exit 0 ;;
        *) exit "$code" ;;
    esac
}
