import type { Bytes, Milliseconds } from "../../units/units.ts";

/** All that the forwarder is bounded by; over each there is a refusal and a test. */

/** Of a question over UDP or TCP; with EDNS options the usual ones have 100. */
export const LONGEST_QUERY: Bytes = 1_232;
/** Of an answer over UDP, as we ask an upstream for it and as we give it: DNS flag day 2020. */
export const LONGEST_UDP_ANSWER: Bytes = 1_232;
/** What everybody takes over UDP: RFC 1035, 4.2.1. */
export const USUAL_UDP_ANSWER: Bytes = 512;
/** The length's own limit: RFC 1035, 4.2.2. */
export const LONGEST_TCP_ANSWER: Bytes = 65_535;
/** RFC 1035, 2.3.4. */
export const LONGEST_NAME: Bytes = 255;
export const LONGEST_LABEL: Bytes = 63;
/** Pointers that are followed for one name; a name has no more labels than 127. */
export const MOST_POINTERS = 32;
/** Records of one answer that are read; one with more is not passed on. */
export const MOST_RECORDS = 1_024;
/** CNAMEs from a name to its addresses. */
export const MOST_ALIASES = 16;
/** Addresses of one answer that are told; one with more is not passed on. */
export const MOST_ADDRESSES = 256;
/** Patterns of one machine. */
export const MOST_DOMAINS = 1_024;

/** Questions that wait for an upstream, of all and of one machine. */
export const MOST_IN_FLIGHT = 512;
export const MOST_IN_FLIGHT_A_MACHINE = 64;
/** Connections, of all and of one machine, and how long one may say nothing. */
export const MOST_CONNECTIONS = 128;
export const MOST_CONNECTIONS_A_MACHINE = 8;
export const IDLE_TIME: Milliseconds = 10_000;
/** Answered bytes that a client has not taken, after which its connection ends. */
export const MOST_UNTAKEN: Bytes = 256 * 1_024;
/** Messages that are handled before others have their turn. */
export const MESSAGES_A_TURN = 64;

/** How long an upstream may take, and how often one question is asked in all. */
export const ANSWER_TIME: Milliseconds = 2_000;
export const MOST_ATTEMPTS = 3;
/** Wrong answers to one attempt, after which it has failed: somebody guesses. */
export const MOST_MISMATCHES = 16;
/** How long `onAllowed` may take. */
export const ALLOW_TIME: Milliseconds = 2_000;
/** What a resolver's configuration may name: MAXNS, resolv.conf(5). */
export const MOST_UPSTREAMS = 3;
/** Between two looks at that file. */
export const LOOK_AGAIN_AFTER: Milliseconds = 2_000;
/** Seconds that an own name may be remembered. */
export const OWN_TIME_TO_LIVE = 5;
