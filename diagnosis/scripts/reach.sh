#!/bin/bash
# Tell which TCP ports answer the first packet of a new connection from this host: `open ADDRESS:PORT SOURCE`, a line each.
#
# From the environment: TARGETS (ADDRESS:PORT, separated by spaces), QUARTERS (how many quarters of a second to wait at
# most), UNTIL (open: until all are open; answered: until all have answered, in whichever way).
#
# No connection comes about: the kernel, which knows of none, resets what answers. Programs that listen see nothing of
# it. That matters to BIRD, which takes a connection from a peer of an established session for the peer's restart.
# Perl's base is essential on Debian and Ubuntu.
set -eu

# shellcheck disable=SC2086 # targets are several arguments
exec perl - "$QUARTERS" "$UNTIL" $TARGETS <<'PERL'
use strict;
use warnings;
use Socket;

my ($quarters, $until, @targets) = @ARGV;
my ($SYN, $RST, $SYN_ACK) = (0x02, 0x04, 0x12);

sub checksum {
    my ($data) = @_;
    my $sum = 0;
    $sum += $_ for unpack 'n*', $data . "\0" x (length($data) % 2);
    $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
    return ~$sum & 0xffff;
}

socket(my $raw, PF_INET, SOCK_RAW, getprotobyname('tcp') || 6) or die "raw socket: $!\n";
my %waiting;
for my $target (@targets) {
    my ($address, $port) = split /:/, $target;
    my $to = pack_sockaddr_in($port, inet_aton($address));
    # The source address that this host has on the way there: what a connection would have.
    socket(my $way, PF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
    connect($way, $to) or next;
    my (undef, $source) = unpack_sockaddr_in(getsockname $way);
    # Bound and not used: a port that is free, and stays so.
    socket(my $own, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
    bind($own, pack_sockaddr_in(0, $source)) or die "bind: $!\n";
    my ($number) = unpack_sockaddr_in(getsockname $own);
    my $pseudo = $source . inet_aton($address) . pack('CCn', 0, 6, 20);
    my @fields = ($number, $port, int rand 2**32, 0, 0x5000 | $SYN, 1024);
    my $syn = pack('nnNNnnnn', @fields, checksum($pseudo . pack('nnNNnnnn', @fields, 0, 0)), 0);
    $waiting{inet_aton($address) . pack('nn', $port, $number)} =
        {name => $target, to => $to, syn => $syn, own => $own, source => inet_ntoa($source)};
}

for (1 .. $quarters) {
    send $raw, $_->{syn}, 0, $_->{to} for grep { !$_->{refused} || $until eq 'open' } values %waiting;
    my ($left, $found) = 0.25;
    while (%waiting) {
        vec(my $ready = '', fileno $raw, 1) = 1;
        ($found, $left) = select $ready, undef, undef, $left;
        last if $found <= 0;
        recv $raw, my $packet, 2048, 0;
        my $head = 4 * (ord($packet) & 15);
        next if length($packet) < $head + 14;
        my $key = substr($packet, 12, 4) . substr($packet, $head, 4);
        my $target = $waiting{$key} or next;
        my $flags = ord substr($packet, $head + 13, 1);
        if (($flags & 0x17) == $SYN_ACK) {
            print "open $target->{name} $target->{source}\n";
            delete $waiting{$key};
        } elsif ($flags & $RST) {
            $target->{refused} = 1;
            last if $until ne 'open' && !grep { !$_->{refused} } values %waiting;
        }
    }
    last if !grep { $until eq 'open' || !$_->{refused} } values %waiting;
}
PERL
