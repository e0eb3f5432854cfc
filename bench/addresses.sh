#!/bin/bash
# Requests $EACH addresses of pool $POOL from this host's driver on each of $CONNECTIONS connections at once, as Docker
# does, and releases them. Prints the number of addresses and the time in µs for each connection.
set -eu
socket=/run/docker/plugins/calico-ipam.sock

# Send a call to the driver on this worker's connection; the body of the response is then in $body.
call() {
    printf 'POST /IpamDriver.%s HTTP/1.1\r\nHost: docker\r\nContent-Length: %s\r\n\r\n%s' "$1" "${#2}" "$2" >&"$to"
    local line length=0
    while IFS= read -r -t 60 line <&"$from" && line=${line%$'\r'} && [ -n "$line" ]; do
        [[ $line != [Cc]ontent-[Ll]ength:* ]] || length=${line#*: }
    done
    IFS= read -r -t 60 -N "$length" body <&"$from"
}

work() {
    local body address to from addresses=()
    coproc nc -U "$socket"
    from=${COPROC[0]} to=${COPROC[1]}
    # All workers of all hosts start at the next even second, as far as the hosts' clocks agree.
    sleep "$(awk -v now="$(date +%s.%N)" 'BEGIN { printf "%.3f", 2 - now % 2 }')"
    local started
    started=$(date +%s%N)
    for _ in $(seq "$EACH"); do
        call RequestAddress "{\"PoolID\":\"$POOL\",\"Address\":\"\",\"Options\":{}}"
        [[ $body =~ \"Address\":\"([0-9.]+)/32\" ]] || { echo "the driver answers: $body" >&2; exit 1; }
        addresses+=("${BASH_REMATCH[1]}")
    done
    echo "$EACH $((($(date +%s%N) - started) / 1000))"
    for address in "${addresses[@]}"; do
        call ReleaseAddress "{\"PoolID\":\"$POOL\",\"Address\":\"$address\"}"
    done
}

workers=()
for _ in $(seq "$CONNECTIONS"); do
    work &
    workers+=($!)
done
for worker in "${workers[@]}"; do wait "$worker"; done
