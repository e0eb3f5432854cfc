#!/bin/sh
# The firewall of one host: changes that undo themselves unless they are confirmed.
#
#   firewall.sh apply SECONDS    load the documents beside this script; undo after SECONDS unless confirmed
#   firewall.sh confirm CHANGE   keep them
#   firewall.sh undo             put back what was loaded before, if a change waits for confirmation
#   firewall.sh boot             undo what was never confirmed, or load what is current
#   firewall.sh jumps            put the jumps to our chains back in their place
#   firewall.sh show             print what the kernel has of ours
#   firewall.sh remove           leave nothing
#
# Only our own chains are ever written, each family in one transaction. `current` holds what is loaded; while a
# change waits for its confirmation, `previous` holds what was loaded before (nothing, when it is empty). Both
# are made by rename, so that they are whole at any moment at which the power can fail.
set -eu
export LC_ALL=C

ETC=/etc/calico-lab/firewall
OPT=/opt/calico-lab/firewall
UNDO=calico-lab-firewall-undo
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

# Looked up in what iptables-save prints, since listing a chain makes the table where there is none.
has_chain() { "$1-save" -t filter | grep -q "^:$2 "; }

# Whether the kernel has the family: where IPv6 is switched off at boot, there is nothing to filter.
has_family() { [ "$1" = iptables ] || [ -e /proc/net/if_inet6 ]; }

# Lines that bring the jump from parent $2 to chain $3 to the front, or nothing where it stands there. Felix
# insists on the very first place for its own rules and checks it, so these may stay in front of ours. They are
# jumps, which only take away, like ours; with the eBPF dataplane they are the rules themselves, known by their
# comments, which accept no new connection to the host but WireGuard's. Everything else comes after us.
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

# Lines that remove chain $3 and the jumps to it from parent $2.
without_chain() {
    if has_chain "$1" "$2"; then
        "$1" -w -S "$2" | sed -n "s/^-A \($2 -j $3\)\$/-D \1/p"
    fi
    printf -- '-F %s\n-X %s\n' "$3" "$3"
}

# The document $2 as one transaction that also places the jumps and removes what the document does not have.
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
            without_chain "$1" "$parent" "$chain"
        fi
    done
    echo COMMIT
}

# Docker makes DOCKER-USER when it starts, or takes the one that is there; it never empties it. That we made it,
# or a table, is written down, so that it goes with us.
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
        # Fails where Docker has put a rule into it, or jumps to it: then it is Docker's by now.
        "$1" -w -X DOCKER-USER 2>/dev/null || true
        rm "$ETC/made-docker-user.$1"
    fi
    if [ -e "$ETC/made-filter.$1" ] && ! "$1-save" -t filter | grep -qv '^[#*C]\|^:[A-Z]* ACCEPT '; then
        # iptables cannot remove a table, and nft may be missing; an empty table does nothing.
        case $1 in
            iptables) nft delete table ip filter 2>/dev/null || true ;;
            ip6tables) nft delete table ip6 filter 2>/dev/null || true ;;
        esac
        rm "$ETC/made-filter.$1"
    fi
}

# Load document $2 for $1 (iptables or ip6tables); an absent or empty one removes our chains.
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
    # What an interrupted run may have left.
    ipset destroy cl4-draft 2>/dev/null || true
    ipset destroy cl6-draft 2>/dev/null || true
    ipset restore -file "$1/sets"
}

# Load the documents of directory $1. The `||` keep its failure for the caller to undo: in a condition, `set -e`
# does not act.
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

# Sets of ours that neither what is loaded nor what may come back needs.
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

# --- the undo timer -----------------------------------------------------------------------------------------

# A unit of systemd, not a child of the SSH session: it fires although the session is gone.
arm() {
    disarm
    systemd-run --quiet --collect --unit="$UNDO" --on-active="$1" --timer-property=AccuracySec=100ms \
        /bin/sh "$OPT/firewall.sh" undo
}

disarm() { systemctl stop "$UNDO.timer" 2>/dev/null || true; }

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
    here=$(dirname "$0")
    test_documents "$here"
    install_program "$here"
    arm "$1"
    rm -rf "$ETC/next"
    mkdir "$ETC/next"
    cp "$here/rules.v4" "$here/rules.v6" "$here/sets" "$here/change" "$ETC/next/"
    sync "$ETC/next/"* "$ETC/next"
    # A change that was never confirmed is superseded: what comes back is what was confirmed last.
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
        fail "apply: the kernel refuses the rules; what was loaded before is back"
    fi
}

confirm() {
    [ "$(cat "$ETC/current/change" 2>/dev/null)" = "$1" ] || fail "confirm: the change is undone already"
    # Who confirms a second time has not had the answer to the first.
    if [ -d "$ETC/previous" ]; then
        # From here on the timer would find nothing to put back.
        mv "$ETC/previous" "$ETC/superseded"
        sync "$ETC"
    fi
    disarm
    rm -rf "$ETC/superseded"
    drop_unused_sets
    systemctl start calico-lab-firewall-jumps.timer
    # It waits for our lock, and then finds nothing to do but to load the same again.
    systemctl start --no-block calico-lab-firewall.service
    show
}

undo() {
    if [ ! -d "$ETC/previous" ]; then
        # An apply that was cut off before it changed anything may have left the program.
        [ -d "$ETC/current" ] || remove
        return
    fi
    if [ -z "$(ls -A "$ETC/previous")" ]; then
        remove
        return
    fi
    # Open is better than locked, should what was fine before be refused now. Nothing is given up before the
    # end: what cuts this off leaves it to the timer, or to the next boot.
    load "$ETC/previous" || load_nothing
    rm -rf "$ETC/current"
    mv "$ETC/previous" "$ETC/current"
    sync "$ETC"
    drop_unused_sets
    disarm
}

boot() {
    if [ -d "$ETC/previous" ]; then
        # A change whose timer still runs was made since the boot.
        systemctl is-active --quiet "$UNDO.timer" || undo
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
                    echo "<4>firewall: $program: put the jump to $chain back in front in $parent"
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
    # Not while it runs `undo`: stopping a unit from within waits for itself.
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
    # Nobody comes again to undo: it waits, however long a change takes to load.
    undo | boot) flock 9 ;;
    *) flock -w 60 9 || fail "$verb: another change has held the lock for a minute" ;;
esac
"$verb" "$@"
