#!/bin/sh
# The firewall of one host. A change is rolled back unless it is confirmed in time.
#
#   firewall.sh apply SECONDS    load the documents beside this script; roll back after SECONDS if not confirmed
#   firewall.sh confirm CHANGE   confirm the change
#   firewall.sh undo             roll back the change that is not confirmed, if there is one
#   firewall.sh boot             roll back a change that is not confirmed; else load the current documents
#   firewall.sh jumps            move the jumps to the lab's chains to the front
#   firewall.sh show             print the lab's chains and sets as the kernel lists them
#   firewall.sh remove           remove the lab's rules, sets and files
#
# The script writes only the lab's own chains, each address family in one transaction. `current` has the loaded
# documents. While a change is not confirmed, `previous` has the documents from before; it is empty if nothing
# was loaded. Both directories are made by rename, so that they are complete after a power failure.
set -eu
export LC_ALL=C

ETC=/etc/calico-lab/firewall
OPT=/opt/calico-lab/firewall
TIMER=calico-lab-firewall-undo
UNITS="calico-lab-firewall.service calico-lab-firewall-jumps.service calico-lab-firewall-jumps.timer"

fail() {
    echo "firewall: $*" >&2
    exit 1
}

# --- iptables -----------------------------------------------------------------------------------------------

parent_of() {
    case $1 in
        CALICO-LAB-INPUT) echo INPUT ;;
        CALICO-LAB-PUBLISHED) echo DOCKER-USER ;;
    esac
}

# Reads iptables-save, because listing a chain creates the table if it is missing.
has_chain() { "$1-save" -t filter | grep -q "^:$2 "; }

# Whether the kernel has the address family: IPv6 can be switched off at boot.
has_family() { [ "$1" = iptables ] || [ -e /proc/net/if_inet6 ]; }

# Print the lines that move the jump from parent $2 to chain $3 to the front; nothing if it is there. Felix keeps
# its own rules first in the chain, so these may stay in front. They are jumps to chains that only restrict; with
# the eBPF dataplane they are the rules themselves, with Felix' comments, and accept no new connection to the host
# except WireGuard's. All other rules come after the jump.
jump_to_front() {
    "$1" -w -S "$2" | awk -v parent="$2" -v jump="-A $2 -j $3" '
        !/^-A/ { next }
        $0 == jump { found++; if (!others) placed++; next }
        !others && (/ -j cali-/ || / --comment "?cali:/) { felix++; next }
        { others++ }
        END {
            if (found == 1 && placed == 1) exit
            while (found-- > 0) { sub(/^-A/, "-D", jump); print jump }
            print "-I " parent " " felix + 1 " -j " substr(jump, index(jump, " -j ") + 4)
        }'
}

# Print the lines that remove chain $3 and the jumps to it from parent $2.
lines_to_remove() {
    if has_chain "$1" "$2"; then
        "$1" -w -S "$2" | sed -n "s/^-A \($2 -j $3\)\$/-D \1/p"
    fi
    printf -- '-F %s\n-X %s\n' "$3" "$3"
}

# Print document $2 as one transaction that also moves the jumps, and removes chains that are not in the document.
transaction() {
    echo '*filter'
    if [ -s "$2" ]; then
        sed '/^\*filter$/d; /^COMMIT$/d' "$2"
    fi
    for chain in CALICO-LAB-INPUT CALICO-LAB-PUBLISHED; do
        parent=$(parent_of "$chain")
        if [ -s "$2" ] && grep -q "^:$chain " "$2"; then
            jump_to_front "$1" "$parent" "$chain"
        elif has_chain "$1" "$chain"; then
            lines_to_remove "$1" "$parent" "$chain"
        fi
    done
    echo COMMIT
}

# Docker creates DOCKER-USER when it starts, or uses an existing one; it never flushes it. A table or chain that
# this script creates is recorded, so that it is removed with the lab's chains.
prepare_family() {
    if ! "$1-save" | grep -q '^\*filter'; then
        touch "$ETC/made-filter.$1"
    fi
    if grep -q '^:CALICO-LAB-PUBLISHED ' "$2" && ! has_chain "$1" DOCKER-USER; then
        "$1" -w -N DOCKER-USER
        touch "$ETC/made-docker-user.$1"
    fi
}

release_family() {
    if [ -e "$ETC/made-docker-user.$1" ] && ! has_chain "$1" CALICO-LAB-PUBLISHED; then
        # Fails if the chain has rules or a jump to it: then Docker uses it.
        "$1" -w -X DOCKER-USER 2>/dev/null || true
        rm "$ETC/made-docker-user.$1"
    fi
    if [ -e "$ETC/made-filter.$1" ] && ! "$1-save" -t filter | grep -qv '^[#*C]\|^:[A-Z]* ACCEPT '; then
        # iptables cannot remove a table, and nft may be missing; an empty table has no effect.
        case $1 in
            iptables) nft delete table ip filter 2>/dev/null || true ;;
            ip6tables) nft delete table ip6 filter 2>/dev/null || true ;;
        esac
        rm "$ETC/made-filter.$1"
    fi
}

# Load document $2 by $1 (iptables or ip6tables); if it is missing or empty, remove the lab's chains.
load_family() {
    has_family "$1" || return 0
    [ -s "$2" ] || has_chain "$1" CALICO-LAB-INPUT || has_chain "$1" CALICO-LAB-PUBLISHED || return 0
    if [ -s "$2" ]; then
        prepare_family "$1" "$2"
    fi
    rules=$(transaction "$1" "$2") || return 1
    printf '%s\n' "$rules" | "$1-restore" -w --noflush || return 1
    release_family "$1"
}

load_sets() {
    [ -s "$1/sets" ] || return 0
    # An interrupted run may have left these.
    ipset destroy cl4-draft 2>/dev/null || true
    ipset destroy cl6-draft 2>/dev/null || true
    ipset restore -file "$1/sets"
}

# Load the documents of directory $1. The `||` return a failure to the caller, which rolls back: `set -e` has no
# effect in a function that is called in a condition.
load() {
    load_sets "$1" || return 1
    load_family iptables "$1/rules.v4" || return 1
    load_family ip6tables "$1/rules.v6" || return 1
    drop_unused_sets
}

load_nothing() {
    load_family iptables /dev/null
    load_family ip6tables /dev/null
}

# Destroy the lab's sets that neither the current nor the previous documents use.
drop_unused_sets() {
    command -v ipset >/dev/null || return 0
    for set in $(ipset list -name | grep '^cl[46]-' || true); do
        grep -qs "^swap cl[46]-draft $set\$" "$ETC/current/sets" "$ETC/previous/sets" || ipset destroy "$set" || true
    done
}

test_documents() {
    for program in iptables-restore ip6tables-restore systemd-run flock; do
        command -v "$program" >/dev/null || fail "test: $program is not installed on this host"
    done
    if [ -s "$1/sets" ]; then
        command -v ipset >/dev/null || fail "test: ipset is not installed on this host"
        load_sets "$1" || fail "test: ipset refuses the sets"
    fi
    for family in iptables:rules.v4 ip6tables:rules.v6; do
        document=$1/${family#*:}
        has_family "${family%:*}" || continue
        if [ -s "$document" ] && ! "${family%:*}-restore" -w --noflush --test "$document"; then
            drop_unused_sets
            fail "test: ${family%:*}-restore refuses the document"
        fi
    done
}

# --- the rollback timer -------------------------------------------------------------------------------------

# A systemd unit and not a child of the SSH session, so that it also fires after the session has ended.
arm() {
    disarm
    systemd-run --quiet --collect --unit="$TIMER" --on-active="$1" --timer-property=AccuracySec=100ms \
        /bin/sh "$OPT/firewall.sh" undo
}

disarm() { systemctl stop "$TIMER.timer" 2>/dev/null || true; }

# --- the verbs ----------------------------------------------------------------------------------------------

install_program() {
    mkdir -p "$OPT" "$ETC"
    cp "$1/firewall.sh" "$OPT/firewall.sh.new"
    mv "$OPT/firewall.sh.new" "$OPT/firewall.sh"
    for unit in $UNITS; do
        cp "$1/$unit" "/etc/systemd/system/$unit"
    done
    systemctl daemon-reload
    systemctl enable --quiet calico-lab-firewall.service calico-lab-firewall-jumps.timer
}

apply() {
    payload=$(dirname "$0")
    test_documents "$payload"
    install_program "$payload"
    arm "$1"
    rm -rf "$ETC/next"
    mkdir "$ETC/next"
    cp "$payload/rules.v4" "$payload/rules.v6" "$payload/sets" "$payload/change" "$ETC/next/"
    sync "$ETC/next/"* "$ETC/next"
    # If `previous` exists, this change supersedes one that is not confirmed: a rollback restores the documents
    # that were confirmed last.
    if [ ! -d "$ETC/previous" ]; then
        if [ -d "$ETC/current" ]; then
            mv "$ETC/current" "$ETC/previous"
        else
            mkdir "$ETC/previous"
        fi
        sync "$ETC"
    fi
    rm -rf "$ETC/current"
    mv "$ETC/next" "$ETC/current"
    sync "$ETC"
    if ! load "$ETC/current"; then
        undo
        fail "apply: the kernel refuses the rules; the rules from before are loaded again"
    fi
}

confirm() {
    [ "$(cat "$ETC/current/change" 2>/dev/null)" = "$1" ] || fail "confirm: the change is rolled back already"
    # Without `previous` this is a second confirmation, because the answer to the first was lost.
    if [ -d "$ETC/previous" ]; then
        # From here on the timer finds no change to roll back.
        mv "$ETC/previous" "$ETC/superseded"
        sync "$ETC"
    fi
    disarm
    rm -rf "$ETC/superseded"
    drop_unused_sets
    systemctl start calico-lab-firewall-jumps.timer
    # The unit waits for the lock, and then loads the same documents again.
    systemctl start --no-block calico-lab-firewall.service
    show
}

undo() {
    if [ ! -d "$ETC/previous" ]; then
        # An apply that was interrupted before it changed the rules may have installed the program.
        [ -d "$ETC/current" ] || remove
        return
    fi
    if [ -z "$(ls -A "$ETC/previous")" ]; then
        remove
        return
    fi
    # If the kernel refuses the previous documents, no rules are loaded: open is better than locked out. The
    # timer runs until the end, so that it or the next boot finishes an interrupted rollback.
    load "$ETC/previous" || load_nothing
    rm -rf "$ETC/current"
    mv "$ETC/previous" "$ETC/current"
    sync "$ETC"
    drop_unused_sets
    disarm
}

boot() {
    if [ -d "$ETC/previous" ]; then
        # If the timer runs, the change was made after the boot.
        systemctl is-active --quiet "$TIMER.timer" || undo
    elif [ -d "$ETC/current" ]; then
        load "$ETC/current"
    fi
}

jumps() {
    for program in iptables ip6tables; do
        has_family "$program" || continue
        for chain in CALICO-LAB-INPUT CALICO-LAB-PUBLISHED; do
            parent=$(parent_of "$chain")
            if has_chain "$program" "$chain" && has_chain "$program" "$parent"; then
                lines=$(jump_to_front "$program" "$parent" "$chain")
                if [ -n "$lines" ]; then
                    printf '*filter\n%s\nCOMMIT\n' "$lines" | "$program-restore" -w --noflush
                    echo "<4>firewall: $program: moved the jump to $chain to the front of $parent"
                fi
            fi
        done
    done
}

show() {
    echo "[change]"
    cat "$ETC/current/change" 2>/dev/null || true
    for program in iptables ip6tables; do
        echo "[$program]"
        has_family "$program" || continue
        for chain in CALICO-LAB-INPUT CALICO-LAB-PUBLISHED; do
            if has_chain "$program" "$chain"; then
                parent=$(parent_of "$chain")
                if has_chain "$program" "$parent"; then
                    "$program" -w -S "$parent" | grep -x -- "-A $parent -j $chain" || true
                fi
                "$program" -w -S "$chain"
            fi
        done
    done
    echo "[sets]"
    if command -v ipset >/dev/null; then
        for set in $(ipset list -name | grep '^cl[46]-' || true); do
            ipset save "$set" | sed -n 's/^add //p'
        done
    fi
}

remove() {
    load_nothing
    rm -rf "$ETC/current" "$ETC/previous"
    drop_unused_sets
    disarm
    # Without --now: the unit may be running this, by `boot`, and would wait for itself to stop.
    systemctl disable --quiet calico-lab-firewall.service 2>/dev/null || true
    systemctl disable --quiet --now calico-lab-firewall-jumps.timer 2>/dev/null || true
    for unit in $UNITS; do
        rm -f "/etc/systemd/system/$unit"
    done
    systemctl daemon-reload
    rm -rf "$ETC" "$OPT"
    rmdir /etc/calico-lab /opt/calico-lab 2>/dev/null || true
}

verb=${1:-}
case $verb in
    apply | confirm | undo | boot | jumps | show | remove) shift ;;
    *) fail "no such verb: '$verb'" ;;
esac
exec 9>/run/calico-lab-firewall.lock
case $verb in
    # A rollback is not tried again, so it waits without a limit until a change is loaded.
    undo | boot) flock 9 ;;
    *) flock -w 60 9 || fail "$verb: another change has held the lock for a minute" ;;
esac
"$verb" "$@"
