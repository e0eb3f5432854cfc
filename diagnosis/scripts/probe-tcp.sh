#!/bin/bash
# Send the first packet of a TCP connection (SYN) to each target, and print a line for each: `<answer> <target> <source>`.
#   $TARGETS   <IPv4 address>:<port>, separated by spaces
#   $QUARTERS  how long to wait for answers, in quarters of a second; a SYN is sent in each
#   $UNTIL     when to stop earlier: open, if all targets are open; answered, if all have answered
#
# Answers: open (SYN ACK), refused (RST), rejected (ICMP port unreachable, as REJECT sends it), unreachable (another ICMP
# error, or this host has no route), silent (no answer). The source is the address that this host sends from; `-` if it
# has no route.
#
# No connection is opened: the kernel does not know of one and answers SYN ACK with RST. A listening program sees nothing.
# BIRD needs this, because it takes a connection from the peer of an established session for a restart of that peer.
# The package perl-base is essential on Debian and Ubuntu.
set -eu

# shellcheck disable=SC2086 # targets are several arguments
exec perl - "$QUARTERS" "$UNTIL" $TARGETS <<'PERL'
use strict;
use warnings;
use Socket;

my ($quarters, $until, @targets) = @ARGV;
my ($SYN, $RST, $SYN_ACK) = (0x02, 0x04, 0x12);
my ($ICMP, $TCP, $UNREACHABLE, $PORT_UNREACHABLE) = (1, 6, 3, 3);

sub checksum {
    my ($data) = @_;
    my $sum = 0;
    $sum += $_ for unpack 'n*', $data . "\0" x (length($data) % 2);
    $sum = ($sum & 0xffff) + ($sum >> 16) while $sum >> 16;
    return ~$sum & 0xffff;
}

socket(my $tcp, PF_INET, SOCK_RAW, $TCP) or die "raw socket: $!\n";
socket(my $icmp, PF_INET, SOCK_RAW, $ICMP) or die "raw socket: $!\n";
my %waiting;
my @probes;
for my $target (@targets) {
    my ($address, $port) = split /:/, $target;
    my $to = pack_sockaddr_in($port, inet_aton($address));
    # Connecting a UDP socket sends nothing; it tells the source address that a connection would have.
    socket(my $udp, PF_INET, SOCK_DGRAM, 0) or die "socket: $!\n";
    if (!connect($udp, $to)) {
        push @probes, {name => $target, source => '-', answer => 'unreachable'};
        next;
    }
    my (undef, $source) = unpack_sockaddr_in(getsockname $udp);
    # A bound socket reserves a free source port.
    socket(my $own, PF_INET, SOCK_STREAM, 0) or die "socket: $!\n";
    bind($own, pack_sockaddr_in(0, $source)) or die "bind: $!\n";
    my ($number) = unpack_sockaddr_in(getsockname $own);
    my $pseudo = $source . inet_aton($address) . pack('CCn', 0, $TCP, 20);
    my @fields = ($number, $port, int rand 2**32, 0, 0x5000 | $SYN, 1024);
    my $syn = pack('nnNNnnnn', @fields, checksum($pseudo . pack('nnNNnnnn', @fields, 0, 0)), 0);
    my $probe = {name => $target, to => $to, syn => $syn, own => $own, source => inet_ntoa($source), answer => 'silent'};
    push @probes, $probe;
    $waiting{inet_aton($address) . pack('nn', $port, $number)} = $probe;
}

# The key in %waiting and the answer that a packet is, if it is one.
sub read_tcp {
    recv $tcp, my $packet, 2048, 0;
    my $head = 4 * (ord($packet) & 15);
    return if length($packet) < $head + 14;
    my $flags = ord substr $packet, $head + 13, 1;
    my $answer = ($flags & 0x17) == $SYN_ACK ? 'open' : $flags & $RST ? 'refused' : return;
    return (substr($packet, 12, 4) . substr($packet, $head, 4), $answer);
}

# An ICMP error quotes the IP header and the first 8 bytes of the packet that it is about.
sub read_icmp {
    recv $icmp, my $packet, 2048, 0;
    my $head = 4 * (ord($packet) & 15);
    return if length($packet) < $head + 8 + 20;
    my ($type, $code) = unpack 'CC', substr $packet, $head, 2;
    my $quoted = substr $packet, $head + 8;
    my $inner = 4 * (ord($quoted) & 15);
    return if $type != $UNREACHABLE || ord(substr $quoted, 9, 1) != $TCP || length($quoted) < $inner + 4;
    my ($source_port, $port) = unpack 'nn', substr $quoted, $inner, 4;
    return (substr($quoted, 16, 4) . pack('nn', $port, $source_port), $code == $PORT_UNREACHABLE ? 'rejected' : 'unreachable');
}

sub unanswered { return grep { $until eq 'open' || $_->{answer} eq 'silent' } values %waiting }

for (1 .. $quarters) {
    send $tcp, $_->{syn}, 0, $_->{to} for unanswered();
    my ($left, $found) = 0.25;
    while (unanswered()) {
        my $ready = '';
        vec($ready, fileno $_, 1) = 1 for $tcp, $icmp;
        ($found, $left) = select $ready, undef, undef, $left;
        last if $found <= 0;
        for my $source ([$tcp, \&read_tcp], [$icmp, \&read_icmp]) {
            next if !vec $ready, fileno $source->[0], 1;
            my ($key, $answer) = $source->[1]->();
            next if !$key || !$waiting{$key};
            $waiting{$key}{answer} = $answer;
            delete $waiting{$key} if $answer eq 'open';
        }
    }
    last if !unanswered();
}
print "$_->{answer} $_->{name} $_->{source}\n" for @probes;
PERL
