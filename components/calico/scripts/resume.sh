#!/bin/bash
# Start this host's clients of a restored datastore. The driver is first: it allocates the addresses of the containers
# that the datastore does not know, and stores their endpoints. Felix would remove the routes of those that it does not
# find. Fail if the driver has not done so after $SECONDS_ALLOWED seconds; Felix then stays stopped on this host.
set -eu
# shellcheck source=components/calico/scripts/environment.sh
. /etc/calico-lab/calico/environment.sh
has_reconciled() {
    # shellcheck disable=SC2016 # the inner shell expands its own arguments
    timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/9101 && printf "GET /metrics HTTP/1.0\r\n\r\n" >&3 && cat <&3' |
        grep -q '^calico_docker_reconciled_timestamp_seconds [1-9]'
}
# It registers the host, of which an older datastore may not know.
systemctl restart calico-lab-calico-startup.service
systemctl restart calico-lab-docker-driver.service
deadline=$((SECONDS + SECONDS_ALLOWED))
until has_reconciled 2>/dev/null; do
    if [ "$SECONDS" -ge "$deadline" ]; then
        echo "$HOST: calico: the driver has not compared its containers with the restored datastore after" \
            "$SECONDS_ALLOWED s; next: 'journalctl -u calico-lab-docker-driver' on this host, then" \
            "'systemctl start calico-lab-felix calico-lab-confd'" >&2
        exit 1
    fi
    sleep 0.5
done
systemctl restart calico-lab-felix.service calico-lab-confd.service
calicoctl delete --skip-not-exists ipreservation "restored-$HOST" >/dev/null
