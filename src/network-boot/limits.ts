import type { Rate } from "../http/limits.ts";
import type { Bytes, Milliseconds } from "../units/units.ts";

/** All that network boot is bounded by; over each there is a refusal and a test. */

/** Of a DHCP message that is received or sent: Ethernet's own. */
export const LONGEST_MESSAGE: Bytes = 1_500;
/** As every PXE client takes it: 576 less the headers of IP and UDP (PXE 2.1, 2.2.1). */
export const LONGEST_OFFER: Bytes = 548;
/** Old ROMs drop what is shorter than BOOTP: RFC 1542, 2.1. */
export const SHORTEST_OFFER: Bytes = 300;
/** Messages that are handled before others have their turn. */
export const MESSAGES_A_TURN = 64;
/** Architectures that one client names in option 93; the first that we have a file for counts. */
export const MOST_ARCHITECTURES = 8;
/** Of the field `file`, with its ending zero; what is longer goes in option 67. */
export const BOOT_FILE_FIELD: Bytes = 128;
/** Answers to one card: a client asks some four times in a boot, and goes on for a minute. */
export const OFFER_RATE: Rate = { burst: 16, perSecond: 2 };
export const OFFERED_CARDS = 4_096;

/** A read request, whose name and options are short. */
export const LONGEST_REQUEST: Bytes = 512;
/** Options of one request, those that we do not know included. */
export const MOST_TFTP_OPTIONS = 16;
/** Of the text in a client's ERROR that is told. */
export const LONGEST_ERROR_TEXT: Bytes = 128;
/** Without an option: RFC 1350. */
export const USUAL_BLOCK: Bytes = 512;
/** RFC 2348. */
export const SMALLEST_BLOCK: Bytes = 8;
/** An Ethernet frame's 1,500 less the headers of IP, UDP and TFTP: nothing is fragmented. */
export const LARGEST_BLOCK: Bytes = 1_468;
/** Blocks that are sent before an ACK: RFC 7440 leaves it to the server. */
export const LARGEST_WINDOW = 32;
export const USUAL_TIMEOUT: Milliseconds = 1_000;
/** Without a timeout of the client's, it is doubled each time up to this. */
export const LONGEST_TIMEOUT: Milliseconds = 8_000;
/** RFC 2349 lets a client say up to 255 s; it would hold a transfer for half an hour. */
export const LONGEST_ASKED_TIMEOUT: Milliseconds = 30_000;
/**
 * How often the first packet is repeated to somebody who has said nothing but a request, whose
 * address may be forged: an answer is never more than three packets.
 */
export const UNANSWERED_REPEATS = 2;
/** The same for a client that has answered before. */
export const MOST_REPEATS = 5;
/** Of one transfer, whatever goes on in it. */
export const LONGEST_TRANSFER: Milliseconds = 15 * 60_000;
export const MOST_TRANSFERS = 256;
/** OVMF has one that it ends itself (it asked for the size), and one that goes on. */
export const MOST_TRANSFERS_A_PEER = 4;
/** Requests of one address. */
export const REQUEST_RATE: Rate = { burst: 32, perSecond: 8 };
export const REMEMBERED_PEERS = 4_096;

/** Of a request's head: line and fields. */
export const LONGEST_HEAD: Bytes = 8 * 1_024;
export const MOST_FIELDS = 64;
export const MOST_CONNECTIONS = 256;
export const MOST_CONNECTIONS_A_PEER = 8;
/** A connection on which nothing is sent or received for so long is closed. */
export const IDLE_TIME: Milliseconds = 30_000;
/** For a request's head to be whole. */
export const HEAD_TIME: Milliseconds = 10_000;
/** What is read from a file, and handed to a socket, at once. */
export const PIECE: Bytes = 256 * 1_024;

/** Scripts of one address; each may mint a token. */
export const SCRIPT_RATE: Rate = { burst: 10, perSecond: 0.5 };
/** Scripts of all together. */
export const SCRIPTS_RATE: Rate = { burst: 200, perSecond: 50 };
/** Of a serial number as a client sends it. */
export const LONGEST_SERIAL = 128;
/** Parameters on a kernel's command line, and characters of it: COMMAND_LINE_SIZE on x86. */
export const MOST_PARAMETERS = 64;
export const LONGEST_COMMAND_LINE = 2_047;

/** Of a file that is served. */
export const LARGEST_FILE: Bytes = 4 * 1_024 ** 3 - 1;
