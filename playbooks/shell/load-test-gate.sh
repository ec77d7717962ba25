#!/bin/sh
# Puts a load on a running stack and passes only where its own figures stay within the targets.
#
#   LOAD='tvops bench orders --rate 1000 --seconds 60 --gateway http://127.0.0.1:8000' load-test-gate.sh
#   LOAD='tvops bench run steady --gateway http://127.0.0.1:8000 --market http://127.0.0.1:8001' load-test-gate.sh
#
#   LOAD             the command that makes the load: one program with its arguments, which ends by itself with code 0
#   GATEWAY          address of the order gateway (default http://127.0.0.1:8000)
#   MARKET           address of market data (default http://127.0.0.1:8001)
#   REPLY_P99_MS     most that reply_p99_ms of the gateway's /stats may reach (default 25)
#   LATENCY_P99_MS   most that latency_p99_ms of market data's /stats may reach (default 50)
#   WARM_UP          seconds at the beginning that do not count (default 5)
#   LOAD_SECONDS     longest that the load may take (default 900); it is ended then, and the gate fails
#   TVOPS_API_KEY    an API key, where the stack wants one; it stands in no argument
#
# The figures are read once a second while the load runs, and the worst of each counts; one that the stack did not
# measure, since nobody ordered or nobody listened, is null and told. Prints them as one line of JSON. Exit codes: 0 passed, 1 not passed, 2 usage. Needs curl.
set -u

GATEWAY=${GATEWAY:-http://127.0.0.1:8000}
MARKET=${MARKET:-http://127.0.0.1:8001}
REPLY_P99_MS=${REPLY_P99_MS:-25}
LATENCY_P99_MS=${LATENCY_P99_MS:-50}
WARM_UP=${WARM_UP:-5}
LOAD_SECONDS=${LOAD_SECONDS:-900}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

fetch() { # address
    if [ -n "${TVOPS_API_KEY:-}" ]; then
        printf 'header = "X-API-Key: %s"\n' "$TVOPS_API_KEY" | curl -fsS --max-time 5 --config - -- "$1"
    else
        curl -fsS --max-time 5 -- "$1"
    fi
}

figure() { # name; JSON on stdin
    sed -n "s/.*\"$1\": *\([0-9][0-9.]*\).*/\1/p"
}

larger() { awk -v a="$1" -v b="$2" 'BEGIN { print (a + 0 > b + 0 ? a : b) }'; }
within() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a + 0 <= b + 0) }'; }

is_number() { printf '%s\n' "$1" | grep -Eq '^[0-9]+(\.[0-9]+)?$'; }

if [ $# -ne 0 ] || [ -z "${LOAD:-}" ]; then
    say "usage: LOAD='COMMAND' load-test-gate.sh; the head of the script tells the rest"
    exit 2
fi
command -v curl >/dev/null || { say "needs curl"; exit 2; }
for value in "$REPLY_P99_MS" "$LATENCY_P99_MS" "$WARM_UP" "$LOAD_SECONDS"; do
    is_number "$value" || { say "$value is not a number"; exit 2; }
done
for address in "$GATEWAY" "$MARKET"; do
    fetch "$address/stats" >/dev/null || { say "$address/stats does not answer"; exit 1; }
done

# A shell that only starts the load, so that its own exit code can be had from wait.
sh -c "exec $LOAD" >&2 </dev/null &
load=$!
trap 'kill "$load" 2>/dev/null' INT TERM EXIT

reply='' latency='' readings=0 missed=0 second=0
while kill -0 "$load" 2>/dev/null; do
    sleep 1
    second=$((second + 1))
    [ "$second" -le "$LOAD_SECONDS" ] || { say "the load has not ended after $LOAD_SECONDS s"; exit 1; }
    [ "$second" -gt "$WARM_UP" ] || continue
    orders=$(fetch "$GATEWAY/stats")
    stream=$(fetch "$MARKET/stats")
    if [ -z "$orders" ] || [ -z "$stream" ]; then
        missed=$((missed + 1))
        continue
    fi
    readings=$((readings + 1))
    now_reply=$(printf '%s\n' "$orders" | figure reply_p99_ms)
    now_latency=$(printf '%s\n' "$stream" | figure latency_p99_ms)
    [ -z "$now_reply" ] || reply=$(larger "$reply" "$now_reply")
    [ -z "$now_latency" ] || latency=$(larger "$latency" "$now_latency")
done
code=0
wait "$load" || code=$?
trap - INT TERM EXIT

printf '{"reply_p99_ms":%s,"latency_p99_ms":%s,"readings":%s,"missed":%s,"load_exit_code":%s}\n' \
    "${reply:-null}" "${latency:-null}" "$readings" "$missed" "$code"

passed=0
[ "$code" -eq 0 ] || { say "the load ended with exit code $code"; passed=1; }
[ "$readings" -gt 0 ] || { say "no figures after the first $WARM_UP s: the load was too short"; passed=1; }
[ "$missed" -eq 0 ] || { say "/stats did not answer $missed times under load"; passed=1; }
within "$reply" "$REPLY_P99_MS" || { say "order replies: p99 $reply ms, target $REPLY_P99_MS ms"; passed=1; }
within "$latency" "$LATENCY_P99_MS" || { say "market data: p99 $latency ms, target $LATENCY_P99_MS ms"; passed=1; }
[ "$readings" -eq 0 ] || [ -n "$reply" ] || say "orders: nobody ordered, so their latency is not known"
[ "$readings" -eq 0 ] || [ -n "$latency" ] || say "market data: nobody listened, so its latency is not known"
exit $passed
