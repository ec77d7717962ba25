#!/bin/sh
# Restarts several instances of tvops serve one after the other, each behind its health checks.
#
#   rolling-restart.sh INSTANCES
#
# INSTANCES is a file with one instance a line; blank lines and lines that begin with # count for nothing:
#
#   unit    tvops@a.service       http://10.0.0.1:8000 http://10.0.0.1:8001
#   pidfile /run/tvops-b.pid      http://10.0.0.2:8000 http://10.0.0.2:8001 /opt/tvops/start-b.sh
#   command /opt/tvops/restart-c  http://10.0.0.3:8000 http://10.0.0.3:8001
#
# unit: systemctl restart. pidfile: SIGTERM to the process in the file (its first number; the serve.lock of a data
# directory will do), then the start command, which has to return. command: a program that restarts it, over ssh for example.
# The addresses are those of the order gateway and of market data.
#
# Every instance has to be healthy before the first is touched, so that a restart never takes away the last one that
# works. An instance counts as healthy when /health of both ports says ok. The first that is not in time ends the job.
#
#   HEALTH_SECONDS   longest wait for health after a start (default 60)
#   STOP_SECONDS     longest wait for a process to end (default 15); it is not killed then, and the job ends
#
# Exit codes: 0 all restarted, 1 stopped at an instance, 2 usage. Needs curl.
set -u

HEALTH_SECONDS=${HEALTH_SECONDS:-60}
STOP_SECONDS=${STOP_SECONDS:-15}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

is_healthy() { # address of a port
    curl -fsS --max-time 5 -- "$1/health" 2>/dev/null | grep -Eq '^\{ *"status": *"ok"'
}

are_healthy() { is_healthy "$1" && is_healthy "$2"; }

wait_for_health() { # gateway, market
    left=$HEALTH_SECONDS
    until are_healthy "$1" "$2"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 1
    done
}

stop_process() { # pid file
    pid=$(sed -n '1s/^[^0-9]*\([0-9][0-9]*\).*/\1/p' "$1") || return 1
    [ -n "$pid" ] || { say "$1 has no process id on its first line"; return 1; }
    kill -TERM "$pid" 2>/dev/null || { say "process $pid of $1 does not run, or is not ours"; return 1; }
    left=$STOP_SECONDS
    while kill -0 "$pid" 2>/dev/null; do
        [ "$left" -gt 0 ] || { say "process $pid has not ended within $STOP_SECONDS s"; return 1; }
        left=$((left - 1))
        sleep 1
    done
}

restart() { # how, what, start command
    case $1 in
        unit) systemctl restart -- "$2" ;;
        # The instances are read from stdin: nothing that is started may take it.
        pidfile) stop_process "$2" && sh -c "$3" </dev/null ;;
        command) sh -c "$2" </dev/null ;;
    esac
}

# Calls a function with the words of each instance: how, what, gateway, market, start command.
each_instance() {
    number=0
    while read -r how what gateway market start || [ -n "${how:-}" ]; do
        number=$((number + 1))
        case $how in '' | '#'*) continue ;; esac
        "$1" "$how" "$what" "$gateway" "$market" "$start" || return $?
    done <"$instances"
}

check_line() {
    case $1 in
        unit | command) [ -n "$4" ] && return ;;
        pidfile) [ -n "$5" ] && return ;;
    esac
    say "$instances, line $number: is none of: unit NAME GATEWAY MARKET; pidfile FILE GATEWAY MARKET START; command PROGRAM GATEWAY MARKET"
    return 2
}

check_health() {
    are_healthy "$3" "$4" || { say "$2 is not healthy at $3 and $4: nothing was restarted"; return 1; }
}

restart_one() {
    printf 'restarting %s\n' "$2"
    restart "$1" "$2" "$5" || { say "$2 was not restarted; the instances behind it were left alone"; return 1; }
    wait_for_health "$3" "$4" || {
        say "$2 is not healthy after $HEALTH_SECONDS s; the instances behind it were left alone"
        return 1
    }
    printf 'healthy    %s\n' "$2"
}

if [ $# -ne 1 ]; then
    say "usage: rolling-restart.sh INSTANCES"
    exit 2
fi
instances=$1
[ -r "$instances" ] || { say "$instances cannot be read"; exit 2; }
command -v curl >/dev/null || { say "needs curl"; exit 2; }

each_instance check_line || exit $?
each_instance check_health || exit $?
each_instance restart_one
