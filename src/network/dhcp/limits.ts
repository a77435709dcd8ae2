import type { Bytes, Milliseconds } from "../../units/units.ts";

/** All that DHCP is bounded by; over each there is a refusal and a test. */

/** Of a packet that is received or sent: Ethernet's own. A longer one is malformed. */
export const LONGEST_PACKET: Bytes = 1_500;
/** DHCP alone, that every client takes: 576 less the headers of IP and UDP (RFC 2131, 2). */
export const LONGEST_REPLY: Bytes = 548;
/** BOOTP's own size; relays and old clients drop what is shorter (RFC 1542, 2.1). */
export const SHORTEST_REPLY: Bytes = 300;
/** Options of one message, pads not counted. */
export const MOST_OPTIONS = 64;
/** Type 1, interface and a DUID of 130 bytes (RFC 4361; RFC 8415, 11.1). It is echoed. */
export const LONGEST_CLIENT_IDENTIFIER: Bytes = 135;
/** A label: RFC 1035, 2.3.4. */
export const LONGEST_HOSTNAME = 63;
export const LONGEST_DOMAIN = 40;
export const MOST_NAME_SERVERS = 3;
/** T1 and T2 have to be whole seconds apart. */
export const SHORTEST_LEASE_SECONDS = 60;
export const LONGEST_LEASE_SECONDS = 7 * 24 * 3_600;
/** What an IPv4 host has to take, and what a virtual bridge can carry. */
export const SMALLEST_MTU = 576;
export const LARGEST_MTU = 65_535;

/** Messages of one card that are answered at once, and then in a second. */
export const CLIENT_BURST = 16;
export const CLIENT_MESSAGES_A_SECOND = 2;
/** Messages that are handled before others have their turn. */
export const MESSAGES_A_TURN = 64;
/** A declined address is not given again before; a client waits 10 s too (RFC 2131, 3.1). */
export const DECLINE_HOLD: Milliseconds = 10_000;
